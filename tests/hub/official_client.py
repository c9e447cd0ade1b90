"""huggingface_hub itself against the stand-in hub: what it uploads and downloads there shows that the stand-in is right.

    official_client.py ENDPOINT upload FOLDER REPO       creates REPO and uploads the folder
    official_client.py ENDPOINT download REPO FOLDER     downloads all of REPO
"""
import os, sys, tempfile

endpoint, action, first, second = sys.argv[1:]
home = tempfile.mkdtemp()
os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=home, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1",
                  HF_HUB_DISABLE_PROGRESS_BARS="1", HF_TOKEN="hf_valid")
import huggingface_hub

api = huggingface_hub.HfApi(endpoint=endpoint, token="hf_valid")
if action == "upload":
    api.create_repo(second, private=True, exist_ok=True)
    info = api.upload_folder(folder_path=first, repo_id=second, commit_message="official")
    assert second in info.commit_url, info
else:
    huggingface_hub.snapshot_download(first, local_dir=second, token="hf_valid")
    info = api.model_info(first, files_metadata=True)
    assert len(info.sha) == 40 and info.siblings, info
print(huggingface_hub.__version__)
