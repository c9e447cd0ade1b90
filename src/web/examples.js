// Prompts that show how this kind of model likes to be spoken to.
import * as api from "./api.js";
import {button, el} from "./dom.js";
import {picture_urls} from "./text.js";

const kStories = [
  {title: "A story in one sentence", shape: "3:2",
   prompt: "On the last evening of summer an old lighthouse keeper sits on the stone steps below his tower, a tin cup of tea steaming in his hands, while a fox that has come every year waits two steps below him; the sea is flat and violet, the lamp has just been lit, and a single moth circles in its beam. Photographed on medium format film, soft grain, low golden light from the left."},
  {title: "From near to far", shape: "16:9",
   prompt: "In the foreground a wooden table with a half-peeled orange, a brass compass and an unfolded map whose creases throw small shadows. Behind it, slightly out of focus, a woman in a blue woollen coat looks out of a train window. Outside, snow-covered fields and a row of poplars pass by under a pale winter sun. Quiet, cinematic, natural colours."},
  {title: "A portrait with its reasons", shape: "4:5",
   prompt: "Portrait of a watchmaker of about seventy, a loupe pushed up on her forehead and silver hair tied back in haste, because she has just found the fault she was looking for all day. Her smile is small and private. Warm lamplight from a bench lamp on the right, the rest of the workshop in deep brown shadow, shelves of clocks hardly visible. 85 mm, shallow depth of field."},
];
const kLetters = [
  {title: "A shop sign", shape: "3:2",
   prompt: "A narrow bookshop in the rain at dusk, its warm window full of books. Above the door a hand-painted wooden sign with the words \"THE SECOND CHAPTER\" in cream serif letters on dark green. Reflections of the sign on wet cobblestones."},
  {title: "A poster", shape: "2:3",
   prompt: "A minimalist travel poster in three colours, cream, rust and deep blue: a small train crosses a high viaduct. At the top in bold condensed capitals the text \"NIGHT TRAIN\", at the bottom in small letters \"every evening at 22:10\". Screen print texture, generous margins."},
  {title: "A note", shape: "1:1",
   prompt: "A yellow sticky note on a laboratory refrigerator that reads \"do NOT eat the moon samples\" in blue ballpoint handwriting, held by a magnet in the shape of an astronaut. Close-up, slightly tilted, fluorescent light."},
];
const kIcons = [
  {title: "A thing on a colour", shape: "1:1", prompt: "a red apple on a blue background"},
  {title: "An animal in a style", shape: "1:1", prompt: "a cartoon penguin on a yellow background"},
  {title: "A thing alone", shape: "1:1", prompt: "a 3d rocket"},
  {title: "Food", shape: "1:1", prompt: "a birthday cake on a pink background"},
];

const kLong = ["Long prompts", "Say who, where, why and in what light, in whole sentences. FLUX.1 reads several hundred words.", kStories];
const kText = ["Text in pictures", "Put the words into quotation marks and say how they are written and where.", kLetters];
const kPlain = ["Short and plain", "For the small model in the box: one thing, a style such as 3d or flat, a colour, a background, in a square.", kIcons];

/// use({prompt, aspect_ratio}) fills the form; use(input) also with everything of a stored example. `box`: the small model
/// stands in, which can follow the plain ones only.
export function examples_tab(full_name, box, use) {
  const groups = box ? [kPlain, ["For FLUX.1: long prompts", kLong[1], kStories], ["For FLUX.1: text in pictures", kText[1], kLetters]] : [kLong, kText, kPlain];
  const stored = el("div", {class: "cards"});
  api.examples(full_name).then((page) => {
    for (const job of page.results) stored.append(example_card(String(job.input.prompt ?? "").slice(0, 60), job.input.prompt ?? "", picture_urls(job.output)[0], () => use(job.input)));
  }, () => {});
  return el("div", {class: "examples"}, stored, groups.map(([title, words, list]) => el("section", {}, el("h2", {}, title), el("p", {class: "muted"}, words),
    el("div", {class: "cards"}, list.map((each) => example_card(each.title, each.prompt, "", () => use({prompt: each.prompt, aspect_ratio: each.shape})))))));
}

const example_card = (title, prompt, picture, use) =>
  el("article", {class: "card example"}, picture ? el("img", {src: picture, alt: "", loading: "lazy"}) : null,
     el("h3", {}, title), el("p", {dir: "auto"}, prompt), button("Use this prompt", use, {"aria-label": `Use the prompt: ${title}`}));
