// The inputs of a model as a list of fields, from the openapi_schema of its version.

/// [{name, title, description, kind, options, minimum, maximum, fallback, required}] in the schema's own order.
/// kind: text, prompt, choice, integer, number, boolean, file, secret, seed, other.
export function fields_of(version, schema_name = "Input") {
  const schemas = version?.openapi_schema?.components?.schemas ?? {};
  const input = schemas[schema_name] ?? {};
  const required = new Set(input.required ?? []);
  return Object.entries(input.properties ?? {})
    .map(([name, property]) => field(name, property, schemas, required.has(name)))
    .sort((a, b) => a.order - b.order);
}

function field(name, property, schemas, required) {
  const reference = property.allOf?.[0]?.$ref?.split("/").pop();
  const type = reference ? {...schemas[reference], ...property} : property;
  return {
    name,
    title: property.title ?? name.replaceAll("_", " "),
    description: property.description ?? "",
    kind: kind_of(name, type),
    options: type.enum ?? [],
    minimum: type.minimum,
    maximum: type.maximum,
    fallback: property.default,
    order: property["x-order"] ?? 999,
    required,
  };
}

function kind_of(name, type) {
  if (type.enum) return "choice";
  if (name === "prompt") return "prompt";
  if (name === "seed") return "seed";
  if (type["x-cog-secret"]) return "secret";
  if (type.format === "uri") return "file";
  if (["integer", "number", "boolean"].includes(type.type)) return type.type;
  return type.type === "string" ? "text" : "other";
}

/// Input without what equals the default: what snippets and requests carry.
export function without_defaults(fields, input) {
  return Object.fromEntries(Object.entries(input).filter(([name, value]) => {
    const known = fields.find((each) => each.name === name);
    return value !== "" && value !== undefined && value !== null && !(known && known.fallback === value);
  }));
}

// Width and height that stand for a ratio, for shapes and for reserving room (at "1" megapixel).
const kSizes = {"1:1": [1024, 1024], "16:9": [1344, 768], "21:9": [1536, 640], "3:2": [1216, 832], "2:3": [832, 1216],
                "4:5": [896, 1088], "5:4": [1088, 896], "3:4": [896, 1152], "4:3": [1152, 896], "9:16": [768, 1344],
                "9:21": [640, 1536]};

/// Width divided by height of what an input asks for; 1 when it does not say.
export function shape_of(input) {
  const width = Number(input.width), height = Number(input.height);
  if ((input.aspect_ratio === "custom" || !input.aspect_ratio) && width > 0 && height > 0) return width / height;
  const [w, h] = kSizes[input.aspect_ratio] ?? [1, 1];
  return w / h;
}

export const size_of_ratio = (ratio) => kSizes[ratio];
