"""The beta of the next Python client (2.0.0b4), unmodified."""
import tempfile
import time

from replicate import Replicate
import replicate as module

from checks import BASE, SCHNELL, TOKEN, check, is_picture, main, raises, training_zip

client = Replicate(bearer_token=TOKEN, base_url=BASE + "/v1")
FAST = {"prompt": "a red fox", "num_inference_steps": 2, "megapixels": "0.25"}


@check
def run_gives_files():
    output = client.run(SCHNELL, input=FAST)
    assert is_picture(output[0].read()), output


@check
def run_with_version():
    version = client.models.get(model_owner="black-forest-labs", model_name="flux-schnell").latest_version
    output = client.run(f"{SCHNELL}:{version['id'] if isinstance(version, dict) else version.id}", input=FAST)
    assert is_picture(output[0].read())


@check
def base_url_without_v1_works_too():
    other = Replicate(bearer_token=TOKEN, base_url=BASE)
    assert is_picture(other.run(SCHNELL, input=FAST)[0].read())
    assert other.account.get().username == "me"


@check
def use_downloads_outputs():
    import os

    os.environ["REPLICATE_API_TOKEN"] = TOKEN
    os.environ["REPLICATE_BASE_URL"] = BASE + "/v1"
    flux = module.use(SCHNELL)
    paths = flux(**FAST)
    assert is_picture(open(paths[0], "rb").read()), paths


@check
def auto_paging():
    seen = {prediction.id for prediction in client.predictions.list()}
    assert len(seen) >= 1


@check
def uploads_are_recognised_by_content():
    made = client.files.create(content=training_zip())
    assert client.files.get(file_id=made.id).id == made.id
    name = f"b{int(time.time() * 1000)}"
    client.models.create(owner="me", name=name, visibility="private", hardware="cpu")
    training = client.trainings.create(
        model_owner="ostris", model_name="flux-dev-lora-trainer", version_id="4ffd32160efd92e956d39c5338a9b8fbafca58e03f791f6d8011f3e20e8ea6fa",
        destination=f"me/{name}", input={"input_images": made.urls.get, "steps": 4, "resolution": "96", "lora_rank": 2, "autocaption": False})
    end = time.time() + 500
    while training.status not in ("succeeded", "failed", "canceled") and time.time() < end:
        time.sleep(0.5)
        training = client.trainings.get(training_id=training.id)
    assert training.status == "succeeded", (training.status, training.error)
    client.files.delete(file_id=made.id)


@check
def metadata_arrives():
    made = client.files.create(content=b"x", metadata={"set": "foxes", "camera": {"lens": 50}, "tags": ["a", "b"]})
    assert client.files.get(file_id=made.id).metadata == {"set": "foxes", "camera": {"lens": "50"}, "tags": ["a", "b"]}, made
    client.files.delete(file_id=made.id)


@check
def signed_download():
    import base64
    import hashlib
    import hmac

    content = training_zip()
    made = client.files.create(content=content)
    secret = client.webhooks.default.secret.get().key
    expiry = int(time.time()) + 60
    sign = lambda text: base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()
    answer = client.files.download(file_id=made.id, owner="me", expiry=expiry, signature=sign(f"me {made.id} {expiry}"))
    assert answer.read() == content
    raises(Exception, client.files.download, file_id=made.id, owner="you", expiry=expiry, signature=sign(f"me {made.id} {expiry}"))


@check
def models_search_and_the_rest():
    for text in ("schnell", "Schnell FLUX"):
        assert any(model.name == "flux-schnell" for model in client.models.search(body=text)), text
    assert client.search(query="flux").models
    assert any(each.sku == "cpu" for each in client.hardware.list())
    assert list(client.collections.list())
    assert client.models.versions.list(model_owner="black-forest-labs", model_name="flux-dev")
    model = client.models.get(model_owner="black-forest-labs", model_name="flux-dev")
    assert model.owner == "black-forest-labs"


@check
def strict_validation_accepts_the_objects():
    strict = Replicate(bearer_token=TOKEN, base_url=BASE + "/v1", _strict_response_validation=True)
    prediction = strict.predictions.create(version="replicate/canary", input={"text": "x"}, prefer="wait")
    strict.predictions.get(prediction_id=prediction.id)
    strict.models.get(model_owner="black-forest-labs", model_name="flux-schnell")
    strict.files.list()
    strict.account.get()
    strict.predictions.list()


@check
def errors_are_typed():
    error = raises(Exception, client.run, SCHNELL, input={"prompt": "x", "num_outputs": 9})
    assert "num_outputs" in str(error), error
    error = raises(Exception, client.predictions.create, version="0" * 64, input={})
    assert "version" in str(error), error


main()
