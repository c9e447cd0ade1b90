"""The official openai package, unmodified, and Black Forest Labs' and Cog's shapes by hand."""
import base64
import io
import time

import httpx
import openai
from PIL import Image

from checks import BASE, TOKEN, check, eventually, is_picture, main, raises, training_zip

client = openai.OpenAI(api_key=TOKEN, base_url=BASE + "/v1")
http = httpx.Client(base_url=BASE, headers={"Authorization": f"Bearer {TOKEN}", "x-key": TOKEN}, timeout=120)


@check
def openai_base64():
    answer = client.images.generate(model="gpt-image-1", prompt="a red fox", size="256x256", n=2)
    assert len(answer.data) == 2 and all(is_picture(base64.b64decode(each.b64_json)) for each in answer.data)
    assert answer.usage.total_tokens == 0 and answer.created > 1e9


@check
def openai_url_and_format():
    answer = client.images.generate(model="black-forest-labs/flux-schnell", prompt="a red fox", size="256x256", response_format="url", output_format="webp")
    got = httpx.get(answer.data[0].url)
    assert got.status_code == 200 and is_picture(got.content), got


@check
def openai_stream_has_partial_images():
    events = list(client.images.generate(model="black-forest-labs/flux-dev", prompt="a slow red fox", size="256x256", stream=True, partial_images=2))  # four steps of [schnell] may be over before the first part
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed" and "image_generation.partial_image" in kinds, kinds
    assert all(is_picture(base64.b64decode(event.b64_json)) for event in events)
    assert kinds.count("image_generation.partial_image") <= 2


@check
def openai_options_that_change_nothing():
    for options in ({"background": "transparent", "moderation": "low", "style": "vivid", "user": "me"}, {"quality": "max"}):
        answer = client.images.generate(model="chatgpt-image-latest", prompt="x", size="64x64", **options)
        assert is_picture(base64.b64decode(answer.data[0].b64_json)) and answer.background == "opaque", answer


@check
def openai_models():
    ids = [model.id for model in client.models.list()]
    assert "black-forest-labs/flux-schnell" in ids, ids
    assert client.models.retrieve("black-forest-labs/flux-schnell")


@check
def openai_errors():
    assert raises(openai.BadRequestError, client.images.generate, model="gpt-image-1", prompt="x", size="1x1").param == "size"
    assert raises(openai.NotFoundError, client.images.generate, model="me/nothing", prompt="x").status_code == 404
    broken = raises(openai.BadRequestError, client.images.edit, model="gpt-image-1", image=io.BytesIO(b"x"), prompt="x")
    assert broken.param == "image", broken.message


@check
def openai_edits_a_picture():
    first = client.images.generate(model="black-forest-labs/flux-dev", prompt="a red fox", size="256x128", response_format="b64_json")
    picture = base64.b64decode(first.data[0].b64_json)
    edited = client.images.edit(model="black-forest-labs/flux-dev", image=("fox.png", picture), prompt="a blue fox", response_format="b64_json")
    changed = base64.b64decode(edited.data[0].b64_json)
    assert is_picture(changed) and changed != picture
    events = list(client.images.edit(model="black-forest-labs/flux-dev", image=("fox.png", picture), prompt="a slow blue fox", stream=True, partial_images=1))
    assert events[-1].type == "image_edit.completed" and all(event.type.startswith("image_edit.") for event in events), events


@check
def openai_edits_the_transparent_part():
    def png(picture):
        out = io.BytesIO()
        picture.save(out, "png")
        return ("picture.png", out.getvalue())

    red = Image.new("RGB", (128, 64), (200, 30, 60))
    mask = red.convert("RGBA")
    mask.paste((0, 0, 0, 0), (64, 0, 128, 64))
    edited = client.images.edit(model="black-forest-labs/flux-dev", image=png(red), mask=png(mask), prompt="a fox", response_format="b64_json")
    result = Image.open(io.BytesIO(base64.b64decode(edited.data[0].b64_json))).convert("RGB")
    left, right = (result.crop((int(a * result.width), 0, int(b * result.width), result.height)).getextrema() for a, b in ((0, 0.45), (0.55, 1)))
    assert left == ((200, 200), (30, 30), (60, 60)), left
    assert max(high - low for low, high in right) > 20, right
    wrong = raises(openai.APIStatusError, client.images.edit, model="black-forest-labs/flux-dev", image=png(red), mask=png(mask.resize((32, 32))), prompt="x")
    assert "32×32" in wrong.message, wrong.message


@check
def bfl_request_and_result():
    made = http.post("/v1/flux-dev", json={"prompt": "a red fox", "width": 256, "height": 256, "steps": 2, "seed": 5, "output_format": "png"}).json()
    assert made["polling_url"].endswith(made["id"]), made

    def ready():
        result = httpx.get(made["polling_url"]).json()
        assert result["status"] in ("Pending", "Ready"), result
        return result if result["status"] == "Ready" else None

    result = eventually(ready, 120, "Ready")
    assert result["result"]["seed"] == 5 and result["result"]["sample"].endswith(".png")
    assert is_picture(httpx.get(result["result"]["sample"]).content)
    assert http.get("/v1/get_result?id=nothing").json()["status"] == "Task not found"
    wrong = http.post("/v1/flux-dev", json={"prompt": "x", "steps": 1000})
    assert wrong.status_code == 422 and wrong.json()["detail"][0]["loc"] == ["body", "steps"], wrong.text
    unseeded = http.post("/v1/flux-dev", json={"prompt": "x", "width": 256, "height": 256, "steps": 1}).json()
    result = eventually(lambda: (now := http.get(unseeded["polling_url"]).json())["status"] == "Ready" and now["result"], 120, "Ready")
    assert isinstance(result["seed"], int), result


@check
def bfl_finetune():
    made = http.post("/v1/finetune", json={"file_data": base64.b64encode(training_zip()).decode(), "finetune_comment": "mine", "mode": "style", "iterations": 100, "captioning": False}).json()
    identity = made["finetune_id"]
    assert identity in http.get("/v1/my_finetunes").json()["finetunes"]
    assert http.get(f"/v1/finetune_details?finetune_id={identity}").json()["finetune_details"]["comment"] == "mine"
    assert http.get(f"/v1/get_result?id={identity}").json()["status"] in ("Pending", "Ready")
    assert http.post("/v1/delete_finetune", json={"finetune_id": identity}).status_code == 200
    assert http.get(f"/v1/finetune_details?finetune_id={identity}").status_code in (200, 404)


@check
def cog_predictions():
    answer = http.post("/predictions", json={"input": {"prompt": "a red fox", "num_inference_steps": 1, "megapixels": "0.25"}})
    assert answer.status_code == 200 and answer.json()["status"] == "succeeded", answer.text[:300]
    assert answer.json()["output"][0].startswith("data:image/")
    identity = f"cog-{int(time.time() * 1000)}"
    put = lambda: http.put(f"/predictions/{identity}", json={"input": {"prompt": "x", "num_inference_steps": 1}}, headers={"Prefer": "respond-async"})
    first, second = put(), put()
    assert first.status_code == second.status_code == 202 and first.json()["id"] == second.json()["id"] == identity
    other = http.put(f"/predictions/{identity}", json={"input": {"prompt": "y"}})
    assert other.status_code == 409, other.text
    other = http.put(f"/predictions/{identity}-2", json={"id": identity, "input": {"prompt": "x"}})
    assert other.status_code == 422 and other.json()["detail"][0]["loc"] == ["body", "id"], other.text
    wrong = http.post("/predictions", json={"input": {"prompt": "x", "num_outputs": "two"}})
    assert wrong.status_code == 422 and wrong.json()["detail"][0]["loc"][:2] == ["body", "input"], wrong.text
    assert http.get("/health-check").json()["status"] in ("READY", "STARTING", "BUSY")


main()
