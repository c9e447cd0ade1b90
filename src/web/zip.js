// Zip files in the browser. Written: stored entries only (pictures are compressed already), as one Blob whose parts are
// the files themselves, so that gigabytes pass without being in memory. Read: stored and deflated entries.
// Format: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12, 4.3.16. Without zip64: 4 GiB and 65,535 entries at most.

export const kZipLimit = 0xffffffff - (64 << 20);
const kUtf8 = 1 << 11;

const table = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; ++k) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

async function crc32(blob, on_bytes) {
  let crc = 0xffffffff;
  const reader = blob.stream().getReader();
  for (let part; !(part = await reader.read()).done;) {
    for (const byte of part.value) crc = table[(crc ^ byte) & 0xff] ^ (crc >>> 8);
    on_bytes?.(part.value.length);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/// fields: [value, bytes] in order, little-endian.
function packed(...fields) {
  const size = fields.reduce((sum, [, bytes]) => sum + bytes, 0);
  const view = new DataView(new ArrayBuffer(size));
  let at = 0;
  for (const [value, bytes] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

/// entries: [{name, blob}] → Blob. on_progress(share).
export async function make_zip(entries, on_progress) {
  const total = entries.reduce((sum, entry) => sum + entry.blob.size, 0) || 1;
  const parts = [], directory = [];
  let offset = 0, read = 0;
  for (const {name, blob} of entries) {
    const bytes = new TextEncoder().encode(name);
    const crc = await crc32(blob, (count) => on_progress?.((read += count) / total));
    // version, flags, method, time, date (1980-01-01: the same pictures give the same zip), crc, sizes, name length
    const common = [[20, 2], [kUtf8, 2], [0, 2], [0, 2], [0x21, 2], [crc, 4], [blob.size, 4], [blob.size, 4], [bytes.length, 2]];
    const head = packed([0x04034b50, 4], ...common, [0, 2]);
    directory.push(packed([0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), bytes);
    parts.push(head, bytes, blob);
    offset += head.length + bytes.length + blob.size;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = packed([0x06054b50, 4], [0, 2], [0, 2], [entries.length, 2], [entries.length, 2], [size, 4], [offset, 4], [0, 2]);
  return new Blob([...parts, ...directory, end], {type: "application/zip"});
}

/// The files of a zip: [{name, size, blob()}]. Error with a sentence for what is no zip or is encrypted.
export async function read_zip(file) {
  const tail_at = Math.max(0, file.size - 66000);
  const tail = new DataView(await file.slice(tail_at).arrayBuffer());
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== 0x06054b50) --end;
  if (end < 0) throw new Error(`${file.name} is no zip file, or its end is missing.`);
  const count = tail.getUint16(end + 10, true), size = tail.getUint32(end + 12, true), at = tail.getUint32(end + 16, true);
  if (at === 0xffffffff || at + size > file.size) throw new Error(`${file.name} is larger than this page unpacks; its directory cannot be read.`);
  const directory = new DataView(await file.slice(at, at + size).arrayBuffer());
  const entries = [];
  for (let i = 0, here = 0; i < count && here + 46 <= directory.byteLength; ++i) {
    if (directory.getUint32(here, true) !== 0x02014b50) break;
    const short = (offset) => directory.getUint16(here + offset, true), long = (offset) => directory.getUint32(here + offset, true);
    const name = new TextDecoder().decode(new Uint8Array(directory.buffer, here + 46, short(28)));
    if (short(8) & 1) throw new Error(`${file.name} is encrypted.`);
    const entry = {name, size: long(24), packed: long(20), method: short(10), at: long(42)};
    if (!name.endsWith("/")) entries.push({name, size: entry.size, blob: () => unpacked(file, entry)});
    here += 46 + short(28) + short(30) + short(32);
  }
  return entries;
}

async function unpacked(file, {name, packed: size, method, at}) {
  const head = new DataView(await file.slice(at, at + 30).arrayBuffer());
  const begin = at + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const raw = file.slice(begin, begin + size);
  if (method === 0) return raw;
  if (method !== 8) throw new Error(`${name} is packed in a way this page does not know.`);
  return new Response(raw.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
}
