"""The endpoint policy against a server that is not ours: `transformers serve` with a tiny random Qwen3-VL.

Its model talks nonsense: the agent must survive it, record it and stop cleanly.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import skimage.data

for package in ("torch", "transformers", "openai", "fastapi", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'pixelis[all,dev]'")

from pixelis.core.store import RunWriter, open_run
from pixelis.policy.base import Task
from pixelis.policy.endpoint import EndpointPolicy
from pixelis.rollout.run import Limits, Runner
from pixelis.testing.scenes import image_medium
from pixelis.testing.tiny_vlm import make_checkpoint
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox

START_S = 120
LAUNCH = """
# The server as it is, but for one thing: Qwen3-VL's processor also loads a video processor, which needs torchvision.
import sys
from transformers import Qwen3VLProcessor
from transformers.processing_utils import ProcessorMixin

def init(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
    for name in ("image_pad", "video_pad", "vision_start", "vision_end"):
        field = name.replace("_pad", "") + "_token"
        setattr(self, field, f"<|{name}|>")
        setattr(self, field + "_id", tokenizer.convert_tokens_to_ids(f"<|{name}|>"))
    ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

Qwen3VLProcessor.__init__ = init
from transformers.cli.transformers import main
sys.argv[0] = "transformers"
sys.exit(main())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    make_checkpoint(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "serve.log").open("w")
    command = [sys.executable, "-c", LAUNCH, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        for _ in range(START_S * 2):
            if process.poll() is not None:
                pytest.fail(f"the server stopped: {(folder / 'serve.log').read_text()[-1500:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"the server did not start within {START_S} s: {(folder / 'serve.log').read_text()[-1500:]}")
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.parametrize("native_tools", [False, True])
def test_a_random_model_is_survived_recorded_and_stopped(server, tmp_path, native_tools):
    url, model = server
    policy = EndpointPolicy(
        model, base_url=url, native_tools=native_tools, max_tokens=24, timeout_s=90, max_retries=0, max_pixels=128 * 128, temperature=1.0
    )
    runner = Runner(policy, Executor(build_toolbox()), settings=ToolSettings(), limits=Limits(max_steps=4, max_seconds=120))
    medium = image_medium(skimage.data.coffee(), "coffee")
    with RunWriter(tmp_path / "run", {}) as writer:
        runner.run([(Task(question="What colour is the cup?", medium=medium), seed) for seed in range(4)], writer)
    stored = list(open_run(tmp_path / "run").trajectories())
    assert len(stored) == 4
    for trajectory in stored:
        # The server itself answers 500 when the nonsense opens a tool call that is no JSON: that costs one trajectory.
        failed = trajectory.stop == "policy_error" and "answered 500" in trajectory.stop_detail
        assert failed or trajectory.stop in ("no_action", "answered", "step_limit"), trajectory.stop_detail
        assert all(step.result.error is not None or step.result.is_ok for step in trajectory.steps)
    assert any(step.text for trajectory in stored for step in trajectory.steps)
