// Numbers, times and sizes as people read them, and JSON without rounding.

export function bytes(count) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])
    if (count >= size) return `${(count / size).toFixed(count < 10 * size ? 1 : 0)} ${unit}`;
  return `${count} bytes`;
}

export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString(undefined, {year: "numeric", month: "short", day: "numeric"});
}

export const clock = (time) => new Date(time).toLocaleString();

/// Integers beyond 2^53 stay as strings of their digits: a seed must come back as it was.
export function parse_json(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  const exact = text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g, (part) =>
    /^-?\d{16,}$/.test(part) && !Number.isSafeInteger(Number(part)) ? `"${part}"` : part);
  return JSON.parse(exact);
}

/// A seed for the wire: a number where one holds it, else its digits.
export function seed_value(text) {
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : text;
}

/// "Num Inference Steps" → "Num inference steps".
export const sentence_case = (title) => title.slice(0, 1).toUpperCase() + title.slice(1).toLowerCase();

/// "there are …" → "There are …".
export const as_sentence = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

/// URLs of this server as paths: the page may be reached under another name than the one in an answer.
export function local_path(url) {
  if (typeof url !== "string") return "";
  try {
    const parsed = new URL(url, location.origin);
    return /^\/(out|v1)\//.test(parsed.pathname) ? parsed.pathname + parsed.search : url;
  } catch {
    return url;
  }
}

/// The pictures of an output: one URL or a list of them.
export function picture_urls(output) {
  const list = Array.isArray(output) ? output : output ? [output] : [];
  return list.filter((each) => typeof each === "string" && /^(https?:\/\/|data:image\/|\/out\/)/.test(each)).map(local_path);
}

export const is_ended = (status) => status === "succeeded" || status === "failed" || status === "canceled";
