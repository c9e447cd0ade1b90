// Draws the emoji of four sets as RGBA pixels, centred on transparent squares.
//
//   node rasterise.mjs OUT            → OUT/drawings.u8 (N × 256 × 256 × 4 bytes), OUT/drawings.json (set, emoji per drawing)
//
// 3D pictures are taken only where fluent-emoji-flat has the code point, and never for the ones that Microsoft keeps for
// itself (trade marks and national flags): https://github.com/microsoft/fluentui-emoji, README.
import {createWriteStream, existsSync, readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {dirname, join} from 'node:path';
import sharp from 'sharp';

const side = 256;
const out = process.argv[2];
const require = createRequire(import.meta.url);
const packageFolder = (name) => dirname(require.resolve(`${name}/package.json`));
const json = (name, file) => JSON.parse(readFileSync(join(packageFolder(name), file)));

const kept_by_microsoft = /^(1f4ce|1f587|1f3ae|1f579|1f468-200d-1f4bb|1f469-200d-1f4bb|1f9d1-200d-1f4bb|1f1..*)$/;
const skin_or_flag = /1f3f[b-f]|^1f1|e007f/;

function iconSet(name, packageName) {
  const icons = json(packageName, 'icons.json'), chars = json(packageName, 'chars.json');
  return Object.entries(chars)
      .filter(([code]) => !skin_or_flag.test(code))
      .map(([code, icon]) => ({set: name, code, icon: icons.icons[icon], width: icons.width ?? 16, height: icons.height ?? 16}))
      .filter((drawing) => drawing.icon);
}

function svg({icon, width, height}) {
  const w = icon.width ?? width, h = icon.height ?? height;
  return Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${side}" height="${side}" ` +
                     `viewBox="${icon.left ?? 0} ${icon.top ?? 0} ${w} ${h}">${icon.body.replaceAll('currentColor', '#000')}</svg>`);
}

const flat = iconSet('flat', '@iconify-json/fluent-emoji-flat');
const assets = join(packageFolder('@lobehub/fluent-emoji-3d'), 'assets');
const solid = flat
    .filter(({code}) => !kept_by_microsoft.test(code))
    .map(({code}) => ({set: '3d', code, file: [code, code.replaceAll('-fe0f', ''), `${code}-fe0f`]
                                                  .map((name) => join(assets, `${name}.webp`)).find(existsSync)}))
    .filter(({file}) => file);
const drawings = [...solid, ...flat, ...iconSet('cartoon', '@iconify-json/noto'),
                  ...iconSet('line', '@iconify-json/fluent-emoji-high-contrast'), ...iconSet('twemoji', '@iconify-json/twemoji')];

const pixels = createWriteStream(join(out, 'drawings.u8'));
const index = [];
for (const drawing of drawings) {
  const picture = await sharp(drawing.file ?? svg(drawing), {density: 72})
      .resize(side, side, {fit: 'contain', background: {r: 0, g: 0, b: 0, alpha: 0}}).ensureAlpha().raw().toBuffer();
  if (!pixels.write(picture)) await new Promise((resolve) => pixels.once('drain', resolve));
  const code = drawing.code.replaceAll('-fe0f', '');
  index.push({set: drawing.set, emoji: String.fromCodePoint(...code.split('-').map((c) => parseInt(c, 16)))});
}
pixels.end();
await new Promise((resolve) => pixels.once('finish', resolve));
writeFileSync(join(out, 'drawings.json'), JSON.stringify(index));
console.log(`${index.length} drawings in ${out}`);
