// The request that the form would send, as code: for Replicate's Python and JavaScript clients, and for curl.
import {button, copy_text, el, fill} from "./dom.js";
import {without_defaults} from "./schema.js";

const kLanguages = ["Python", "JavaScript", "curl"];

/// JSON is Python but for three words; the text of strings is left alone.
const python = (value) =>
  JSON.stringify(value, null, 4).replace(/"(?:[^"\\]|\\.)*"|\btrue\b|\bfalse\b|\bnull\b/g, (part) =>
    ({true: "True", false: "False", null: "None"})[part] ?? part);

const indented = (text, by) => text.replaceAll("\n", `\n${" ".repeat(by)}`);
/// For a shell's single quotes.
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function snippet(language, {origin, reference, by_version, input, format, needs_token}) {
  const key = needs_token ? "your-token" : "any";
  if (language === "Python")
    return `# pip install replicate
import replicate

client = replicate.Client(base_url="${origin}", api_token="${key}")

output = client.run(
    "${reference}",
    input=${indented(python(input), 4)},
)
for number, picture in enumerate(output if isinstance(output, list) else [output]):
    with open(f"out-{number}.${format}", "wb") as file:
        file.write(picture.read())
`;
  if (language === "JavaScript")
    return `// npm install replicate
import {writeFile} from "node:fs/promises";
import Replicate from "replicate";

const replicate = new Replicate({baseUrl: "${origin}/v1", auth: "${key}"});

const output = await replicate.run("${reference}", {
  input: ${indented(JSON.stringify(input, null, 2), 2)},
});
for (const [number, picture] of [output].flat().entries())
  await writeFile(\`out-\${number}.${format}\`, picture);
`;
  const header = needs_token ? ` \\\n  -H "Authorization: Bearer $CALOTYPE_TOKEN"` : "";
  const body = by_version ? {version: reference.split(":")[1], input} : {input};
  const path = by_version ? "predictions" : `models/${reference}/predictions`;
  return `curl -s ${origin}/v1/${path} \\
  -H "Content-Type: application/json" -H "Prefer: wait"${header} \\
  -d ${quoted(JSON.stringify(body, null, 2))}
`;
}

/// The tab "API": follows the form.
export function snippets_tab({form, reference, by_version, needs_token}) {
  let language = localStorage.getItem("calotype.language") ?? "Python";
  const code = el("code", {}), block = el("pre", {class: "code", tabIndex: 0}, code);
  const choices = el("div", {class: "chips", role: "group", "aria-label": "Language"});
  const text = () => {
    const input = form.get();
    return snippet(language, {origin: location.origin, reference, by_version, needs_token,
                              input: without_defaults(form.fields, input), format: input.output_format ?? "webp"});
  };
  const update = () => {
    code.textContent = text();
    for (const each of choices.children) each.setAttribute("aria-pressed", each.textContent === language);
  };
  fill(choices, kLanguages.map((name) => button(name, () => {
    language = name;
    localStorage.setItem("calotype.language", name);
    update();
  }, {class: "chip"})));
  const node = el("div", {class: "api"},
    el("p", {}, "The present form as a program: the clients made for Replicate work here unchanged, only the address differs."),
    el("div", {class: "row between"}, choices, button("Copy", () => copy_text(text()), {icon: "copy"})), block,
    el("p", {class: "muted"}, "All requests: ", el("a", {href: "/docs", target: "_blank"}, "interactive documentation"), " · ",
       el("a", {href: "/openapi.json", target: "_blank"}, "openapi.json")));
  return {node, update};
}
