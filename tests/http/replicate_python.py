"""The official Python client, version 1.0.7, unmodified: everything that published scripts call."""
import asyncio
import json
import os
import tempfile
import time

import httpx
import replicate
from replicate.exceptions import ModelError, ReplicateError

from checks import BASE, SCHNELL, TOKEN, TRAINER, Receiver, check, eventually, is_picture, main, raises, training_zip

client = replicate.Client(api_token=TOKEN, base_url=BASE)
FAST = {"prompt": "a red fox", "num_inference_steps": 2, "megapixels": "0.25"}
DEV = "black-forest-labs/flux-dev"
SLOW = {"prompt": "a slow red fox", "num_inference_steps": 50, "num_outputs": 4, "megapixels": "1"}  # for DEV


def zip_file():
    path = os.path.join(tempfile.mkdtemp(), "images.zip")
    with open(path, "wb") as file:
        file.write(training_zip())
    return open(path, "rb")


def model(name):
    try:
        return client.models.create(owner="me", name=name, visibility="private", hardware="gpu-t4", description="test")
    except ReplicateError:
        return client.models.get(f"me/{name}")


@check
def run_gives_readable_files():
    output = client.run(SCHNELL, input={**FAST, "num_outputs": 2})
    pictures = [file.read() for file in output]
    assert len(pictures) == 2 and all(is_picture(picture) for picture in pictures), output
    assert all(b"trainedAlgorithmicMedia" in picture for picture in pictures), "each says that a model made it"


@check
def run_without_wait_polls():
    output = client.run("replicate/canary", input={"text": "you"}, wait=False)
    assert "you" in "".join(output), output


@check
def run_longer_than_the_hold():
    started = []
    send = client._client.send

    def watched(request, **kwargs):
        answer = send(request, **kwargs)
        answer.read()
        if request.method == "POST":
            started.append(answer.json()["status"])
        return answer

    client._client.send = watched
    try:
        output = client.run(DEV, input=SLOW, wait=1)
    finally:
        client._client.send = send
    assert started == ["starting"], started
    assert is_picture(output[0].read())


@check
def run_with_version():
    version = client.models.get(SCHNELL).latest_version.id
    output = client.run(f"{SCHNELL}:{version}", input=FAST)
    assert is_picture(output[0].read())


@check
def failed_prediction_raises():
    error = raises(ModelError, client.run, DEV, input={"prompt": "fail please", "image": BASE + "/nothing.png", "num_inference_steps": 1})
    assert error.prediction.status == "failed" and error.prediction.error


@check
def create_reload_cancel():
    prediction = client.models.predictions.create(DEV, input=SLOW)
    assert prediction.status == "starting" and prediction.output is None and prediction.logs == ""
    prediction.reload()
    prediction.cancel()
    prediction.reload()
    assert prediction.status == "canceled" and prediction.completed_at, prediction
    assert client.predictions.get(prediction.id).status == "canceled"


@check
def wait_and_progress():
    prediction = client.models.predictions.create(SCHNELL, input={**FAST, "num_inference_steps": 4, "seed": 7})
    prediction.wait()
    assert prediction.status == "succeeded", prediction.error
    assert prediction.progress and prediction.progress.current == prediction.progress.total, prediction.logs
    assert prediction.output[0].startswith(("http", "data:")) if isinstance(prediction.output[0], str) else prediction.output[0].url
    assert prediction.metrics["predict_time"] >= 0 and "Using seed: 7" in prediction.logs


@check
def output_urls_have_names_types_and_lengths():
    prediction = client.models.predictions.create(SCHNELL, input={**FAST, "output_format": "png"})
    prediction.wait()
    url = client._client.get(f"/v1/predictions/{prediction.id}").json()["output"][0]
    head = httpx.head(url)
    assert url.endswith("out-0.png") and head.status_code == 200 and head.headers["content-type"] == "image/png", (url, head)
    whole = httpx.get(url)
    assert int(head.headers["content-length"]) == len(whole.content)
    part = httpx.get(url, headers={"Range": "bytes=1-3"})
    assert part.status_code == 206 and part.content == b"PNG" and part.headers["content-range"] == f"bytes 1-3/{len(whole.content)}"


@check
def stream_has_ids_and_ends():
    events = [str(event.event) for event in client.stream("replicate/canary", input={"text": "stream"})]
    assert events[-1].endswith("DONE") or events[-1] == "done", events
    text = "".join(str(event) for event in client.stream("replicate/canary", input={"text": "stream"}))
    assert "stream" in text, text


@check
async def async_run():
    outputs = await asyncio.gather(*(client.async_run(SCHNELL, input=FAST) for _ in range(4)))
    for output in outputs:
        assert is_picture(await output[0].aread())


@check
def paginate_over_a_hundred():
    for _ in range(110):
        client.predictions.create(version="replicate/canary", input={"text": "page"})
    pages = list(replicate.pagination.paginate(client.predictions.list)) if hasattr(replicate, "pagination") else list(client.paginate(client.predictions.list))
    seen = [prediction.id for page in pages for prediction in page.results]
    assert len(pages) > 1 and len(seen) > 110 and len(set(seen)) == len(seen), (len(pages), len(seen))


@check
def models_and_versions():
    name = f"m{int(time.time() * 1000)}"
    made = client.models.create(owner="me", name=name, visibility="private", hardware="cpu", description="mine")
    assert made.url == f"{BASE}/me/{name}" and made.run_count == 0 and made.latest_version is None
    assert client.models.get(f"me/{name}").description == "mine"
    assert any(each.name == name for each in client.models.list().results)
    assert any(each.name == name for each in client.models.search(name).results)
    official = client.models.get(SCHNELL)
    versions = official.versions.list().results
    assert versions[0].id == official.latest_version.id
    schema = official.versions.get(versions[0].id).openapi_schema["components"]["schemas"]
    assert schema["Input"]["properties"]["num_outputs"]["maximum"] == 4 and schema["Output"]["type"] == "array"
    client.models.delete("me", name) if hasattr(client.models, "delete") else client._client.delete(f"/v1/models/me/{name}")
    raises(ReplicateError, client.models.get, f"me/{name}")


@check
def files():
    with zip_file() as file:
        made = client.files.create(file, metadata={"a": 1})
    data = training_zip()
    assert made.size == len(data) and made.metadata == {"a": 1} and made.content_type == "application/zip", made
    assert made.urls["get"] == f"{BASE}/v1/files/{made.id}"
    assert client.files.get(made.id).checksums["sha256"] == made.checksums["sha256"]
    assert any(each.id == made.id for each in client.files.list())
    assert client.files.delete(made.id)
    raises(ReplicateError, client.files.get, made.id)


@check
def account_hardware_collections_secret():
    assert client.accounts.current().username == "me"
    assert any(each.sku == "cpu" for each in client.hardware.list())
    collection = client.collections.list().results[0]
    assert client.collections.get(collection.slug).models
    assert client.webhooks.default.secret().key.startswith("whsec_")


@check
def deployments():
    name = f"d{int(time.time() * 1000)}"
    version = client.models.get(SCHNELL).latest_version.id
    made = client.deployments.create(name=name, model=SCHNELL, version=version, hardware="cpu", min_instances=0, max_instances=1)
    assert made.current_release.number == 1 and made.current_release.model == SCHNELL
    assert client.deployments.update("me", name, max_instances=2).current_release.number == 2
    unchanged = client._client.patch(f"/v1/deployments/me/{name}", json={"hardware": "gpu-t4", "version": None, "max_instances": None}).json()
    assert unchanged["current_release"]["configuration"]["max_instances"] == 2, unchanged
    prediction = client.deployments.predictions.create(f"me/{name}", input=FAST)
    prediction.wait()
    assert prediction.status == "succeeded", prediction.error
    assert any(each.name == name for each in client.deployments.list().results)
    assert client.deployments.delete("me", name)


@check
def training_end_to_end():
    model("trained")
    start = time.time()
    with zip_file() as file:
        training = client.trainings.create(version=TRAINER, input={"input_images": file, "steps": 6, "resolution": "96", "lora_rank": 4, "trigger_word": "TOK", "autocaption": False}, destination="me/trained")
    assert time.time() - start < 2, time.time() - start
    assert training.status == "starting" and training.output is None
    end = time.time() + 540
    while training.status not in ("succeeded", "failed", "canceled") and time.time() < end:
        time.sleep(0.5)
        training.reload()
    assert training.status == "succeeded", (training.status, training.error, training.logs[-600:])
    assert training.destination == "me/trained" and training.output["weights"].endswith("/trained_model.tar"), training.output
    assert len(httpx.get(training.output["weights"]).content) > 60
    output = client.run(training.output["version"], input={"prompt": "TOK", "num_inference_steps": 2, "guidance_scale": 7.5, "model": "dev", "megapixels": "0.25"})
    assert is_picture(output[0].read())
    assert is_picture(client.run("me/trained", input={"prompt": "TOK", "num_inference_steps": 2, "megapixels": "0.25"})[0].read())


@check
def training_canceled_makes_no_version():
    name = f"c{int(time.time() * 1000)}"
    model(name)
    with zip_file() as file:
        training = client.trainings.create(version=TRAINER, input={"input_images": file, "steps": 4000, "resolution": "96"}, destination=f"me/{name}")
    eventually(lambda: client.trainings.get(training.id).status != "starting" or time.sleep(0.5), 120, "training starts")
    training.cancel()
    eventually(lambda: client.trainings.get(training.id).status == "canceled", 10, "canceled")
    time.sleep(1)
    assert client.models.get(f"me/{name}").latest_version is None
    assert any(each.id == training.id for each in client.trainings.list().results)
    assert client.predictions.get(training.id).status == "canceled"  # links of old recordings


@check
def errors_are_typed():
    error = raises(ReplicateError, client.predictions.create, version="0" * 64, input={})
    assert error.status == 422 and "version" in error.title, error
    error = raises(ReplicateError, client.run, SCHNELL, input={"prompt": "x", "num_outputs": 9})
    assert error.status == 422 and "num_outputs" in error.detail, error
    error = raises(ReplicateError, client.run, SCHNELL, input={"prompt": "x", "sygnal": 1})
    assert error.status == 422 and "sygnal" in error.detail, error
    error = raises(ReplicateError, client.run, SCHNELL, input={})
    assert error.status == 422 and "prompt" in error.detail, error
    error = raises(ReplicateError, client.trainings.create, version=TRAINER, input={"input_images": BASE + "/v1/files/x"}, destination="me/nowhere")
    assert error.status == 404 and "destination" in error.detail, error


@check
def base_url_with_v1_works_too():
    other = replicate.Client(api_token=TOKEN, base_url=BASE + "/v1")
    assert is_picture(other.run(SCHNELL, input=FAST)[0].read())
    assert other.accounts.current().username == "me"


@check
def webhooks_are_signed():
    with Receiver() as receiver:
        prediction = client.predictions.create(version="replicate/canary", input={"text": "hook"}, webhook=receiver.url, webhook_events_filter=["completed"])
        eventually(lambda: receiver.received, 30, "the webhook")
    headers, body = receiver.received[0]
    secret = client.webhooks.default.secret()
    replicate.webhook.Webhooks.validate(headers={name.lower(): value for name, value in headers.items()}, body=body.decode(), secret=secret)
    assert len(receiver.received) == 1 and json.loads(body)["id"] == prediction.id and json.loads(body)["status"] == "succeeded"
    raises(Exception, replicate.webhook.Webhooks.validate, headers={name.lower(): value for name, value in headers.items()}, body=body.decode() + " ", secret=secret)
    log = client._client.get(f"/v1/predictions/{prediction.id}/webhooks").json()["results"]
    assert [each["state"] for each in log] == ["done"], log


@check
def file_inputs_are_uploaded():
    picture = client.run(SCHNELL, input=FAST)[0].read()
    path = os.path.join(tempfile.mkdtemp(), "fox.png")
    with open(path, "wb") as file:
        file.write(picture)
    for strategy in ("url", "base64"):  # a data: URI of this length becomes a file as well
        picture += b"\0" * 20_000
        with open(path, "wb") as file:
            file.write(picture)
        with open(path, "rb") as file:
            prediction = client.predictions.create(model=DEV, input={"prompt": "again", "image": file}, file_encoding_strategy=strategy)
        prediction.cancel()
        url = prediction.input["image"]
        assert url.startswith(BASE + "/v1/files/"), url[:100]
        stored = client.files.get(url.rsplit("/", 1)[1])
        assert stored.size == len(picture), (stored.size, len(picture))


main()
