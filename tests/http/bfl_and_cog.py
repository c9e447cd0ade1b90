"""Black Forest Labs' webhooks and fine-tunes and Cog's trainings, by hand."""
import base64
import hashlib
import hmac
import json

import httpx

from checks import BASE, TOKEN, Receiver, check, eventually, is_picture, main, training_zip

web = httpx.Client(base_url=BASE, headers={"Authorization": f"Bearer {TOKEN}", "x-key": TOKEN}, timeout=120)


# The header's form: github.com/black-forest-labs/skills.
@check
def bfl_webhooks():
    with Receiver() as receiver:
        url = receiver.url + "hook"
        made = web.post("/v1/flux-dev", json={"prompt": "a fox", "width": 256, "height": 256, "steps": 1, "webhook_url": url, "webhook_secret": "hush"}).json()
        assert made["webhook_url"] == url and made["status"] == "Pending" and made["polling_url"], made
        eventually(lambda: receiver.received, 60, "the webhook")
    headers, body = receiver.received[0]
    assert headers["x-bfl-signature"] == "sha256=" + hmac.new(b"hush", body, hashlib.sha256).hexdigest(), headers
    told = json.loads(body)
    assert told["id"] == made["id"] and told["status"] == "Ready" and is_picture(httpx.get(told["result"]["sample"]).content), told
    assert len(receiver.received) == 1 and "hush" not in web.get("/v1/predictions/" + made["id"]).text
    for wrong in ({"webhook_url": "no url"}, {"webhook_url": 7}, {"webhook_url": url, "webhook_secret": 7}):
        answer = web.post("/v1/flux-dev", json={"prompt": "x", **wrong})
        assert answer.status_code == 422 and answer.json()["detail"][0]["loc"][1].startswith("webhook_"), answer.text


@check
def bfl_endpoints_that_need_a_picture():
    for path in ("flux-pro-1.0-fill", "flux-pro-1.0-canny-finetuned", "flux-kontext-pro"):
        answer = web.post("/v1/" + path, json={"prompt": "x", "image": "aGk=", "finetune_id": "x"})
        assert answer.status_code == 422 and path in answer.json()["detail"], answer.text


@check
def cog_trainings():
    data = "data:application/zip;base64," + base64.b64encode(training_zip()).decode()
    made = web.post("/trainings", json={"input": {"input_images": data, "steps": 3}}, headers={"Prefer": "respond-async"})
    assert made.status_code == 202 and made.json()["status"] in ("starting", "processing"), made.text[:300]
    path = "/trainings/" + made.json()["id"]
    done = eventually(lambda: (job := web.get(path).json())["status"] not in ("starting", "processing") and job, 120, "the training")
    assert done["status"] == "succeeded" and done["output"]["weights"].startswith("http"), done
    drawn = web.post("/v1/predictions", json={"version": done["output"]["version"], "input": {"prompt": "TOK", "num_inference_steps": 1, "megapixels": "0.25"}}, headers={"Prefer": "wait"})
    assert drawn.json()["status"] == "succeeded", drawn.text[:300]
    for wrong in ({"input": {}}, {"input": {"input_images": data, "steps": 0}}, {"version": "x", "destination": "me/x", "input": {}}):
        answer = web.post("/trainings", json=wrong)
        assert answer.status_code == 422 and answer.json()["detail"], answer.text


main()
