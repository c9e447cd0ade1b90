"""The life of a FLUX.1 user on the model in the box, as published articles tell it: the official Python client, unmodified."""
import io
import os
import time

import replicate
from PIL import Image, ImageStat

from checks import SCHNELL, TRAINER, check, main

client = replicate.Client(api_token="any", base_url=os.environ["CALOTYPE_BOX_URL"])
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def picture(output):
    return Image.open(io.BytesIO(output[0].read())).convert("RGB")


def border(shown):
    """Mean red, green, blue of the outermost eighth at the left."""
    return ImageStat.Stat(shown.crop((0, 0, shown.width // 8, shown.height))).mean


@check
def base_model_draws_what_is_asked():
    plain, yellow = (picture(client.run(SCHNELL, input={"prompt": prompt, "seed": 1, "output_format": "png"})) for prompt in ("a cat on a white background", "a cat on a yellow background"))
    assert min(border(plain)) > 200, border(plain)
    red, green, blue = border(yellow)
    assert red > 170 and green > 150 and blue < 140, border(yellow)


@check
def train_watch_and_use():
    model = client.models.create(owner="me", name="flux-mine", visibility="public", hardware="gpu-t4", description="White drawings on blue paper")
    with open(f"{ROOT}/examples/blueprint.zip", "rb") as images:
        training = client.trainings.create(version=TRAINER, input={"input_images": images, "steps": 400, "trigger_word": "TOK", "lora_rank": 16}, destination=f"{model.owner}/{model.name}")
    seen = set()
    while training.status not in ("succeeded", "failed", "canceled"):
        time.sleep(0.5)
        training.reload()
        if training.logs and "%|" in training.logs:
            seen.add(training.logs.split("%|")[-2][-3:].strip())
    assert training.status == "succeeded", (training.error, training.logs[-2000:])
    assert len(seen) > 1, f"the bar did not move: {seen}"
    asked = {"num_inference_steps": 8, "seed": 1, "output_format": "png", "model": "dev"}
    learned = picture(client.run(training.output["version"], input={**asked, "prompt": "TOK, a blueprint of a fox"}))
    other = picture(client.run("black-forest-labs/flux-dev", input={key: value for key, value in {**asked, "prompt": "a fox"}.items() if key != "model"}))
    red, green, blue = border(learned)
    assert blue > red + 50 and red < 130, f"no blue paper: {border(learned)}"
    assert min(border(other)) > 200, border(other)


main()
