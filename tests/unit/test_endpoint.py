"""The endpoint policy against a server on loopback that answers well, badly, late or never."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("openai", reason="the extra 'endpoint' is not installed")

from pixelis.core.errors import ConfigError
from pixelis.policy.base import Task
from pixelis.policy.endpoint import EndpointPolicy
from pixelis.rollout.run import Limits, Runner
from pixelis.testing.scenes import background, image_medium
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

CALL = '<tool_call>{"name": "ZOOM", "arguments": {"bbox_2d": [0, 0, 500, 500]}}</tool_call>'
ANSWER = "<answer>grey</answer>"


def completion(content, tool_calls=None) -> bytes:
    message = {"role": "assistant", "content": content, **({"tool_calls": tool_calls} if tool_calls else {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}).encode()


def native(*calls) -> bytes:
    tool_calls = [{"id": f"c{i}", "type": "function", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(calls)]
    return completion(None, tool_calls)


class Server:
    """Answers request k with the k-th reply (the last one again after that); keeps the requests."""

    def __init__(self, replies):
        self.requests = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append(json.loads(body))
                reply = replies[min(len(server.requests), len(replies)) - 1]
                reply(self) if callable(reply) else send(self, 200, reply)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def send(handler, status, body, length=None):
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def cut(handler):
    send(handler, 200, completion("x")[:40], length=500)
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def endless(handler):
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    try:
        for _ in range(64):
            handler.wfile.write(b" " * (1 << 20))
    except OSError:
        pass


def ask(server, *, native_tools=False, limits=Limits(max_seconds=20), **options):
    policy = EndpointPolicy("m", base_url=server.url, native_tools=native_tools, **{"timeout_s": 5.0, "max_retries": 0, **options})
    runner = Runner(policy, Executor({"ZOOM": ZoomTool()}), settings=ToolSettings(), limits=limits)
    (rollout,) = runner.run([(Task(question="which colour?", medium=image_medium(background(1), "grey")), 5)])
    return rollout.trajectory


def test_a_conversation_in_hermes_text():
    with Server([completion("I look. " + CALL), completion(ANSWER)]) as server:
        trajectory = ask(server)
    assert (trajectory.stop, trajectory.answer, len(trajectory.steps)) == ("answered", "grey", 1)
    first, second = server.requests
    assert first["seed"] == 5 and "<tools>" in first["messages"][0]["content"]
    assert first["messages"][1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert first["messages"][1]["content"][-1] == {"type": "text", "text": "which colour?"}
    response = second["messages"][3]["content"]
    assert response[0]["text"] == trajectory.steps[0].response and response[1]["type"] == "image_url"


def test_a_conversation_in_native_calls():
    with Server([native(("ZOOM", '{"bbox_2d": [0, 0, 500, 500]}')), completion(ANSWER)]) as server:
        trajectory = ask(server, native_tools=True)
    assert (trajectory.answer, trajectory.steps[0].result.status) == ("grey", "ok")
    assert {t["function"]["name"] for t in server.requests[0]["tools"]} == {"SEG", "ZOOM", "TRK", "OCR", "TEMP", "PROP"}
    roles = [m["role"] for m in server.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "user"]
    assert server.requests[1]["messages"][3]["tool_call_id"] == "c0"


def test_logits_are_biased_where_that_is_asked_for():
    with Server([completion(ANSWER)]) as server:
        plain, biased = ask(server), ask(server, logit_bias={"151657": 2.5})
    assert "logit_bias" not in server.requests[0] and server.requests[1]["logit_bias"] == {"151657": 2.5}
    assert "logit_bias" not in plain.policy.sampling and biased.policy.sampling["logit_bias"] == {"151657": 2.5}


def test_two_native_calls_and_broken_arguments_are_the_agents_mistakes():
    with Server([native(("ZOOM", "{}"), ("ZOOM", "{}")), native(("ZOOM", '{"bbox_2d": [0,')), completion(ANSWER)]) as server:
        trajectory = ask(server, native_tools=True)
    assert trajectory.answer == "grey"
    assert [s.result.error.kind for s in trajectory.steps] == ["bad_call", "bad_call"]


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (lambda h: send(h, 500, b'{"error": {"message": "fell over"}}'), "answered 500"),
        (lambda h: send(h, 401, b'{"error": {"message": "no key"}}'), "answered 401"),
        (cut, "no connection"),
        (endless, "no connection"),
        (b"<html>nonsense</html>", "no chat completion"),
        (b'{"choices": []}', "no chat completion"),
        (b'{"choices": [{"message": null}]}', ""),
        (b"[1, 2]", "no chat completion"),
        (b"null", "no chat completion"),
        (b"", "no"),
    ],
)
def test_a_broken_server_is_a_policy_error(reply, says):
    with Server([reply]) as server:
        trajectory = ask(server)
    if says:
        assert trajectory.stop == "policy_error" and says in trajectory.stop_detail
    else:
        assert trajectory.stop in ("policy_error", "no_action")


def test_a_server_that_stalls_costs_its_time_limit():
    with Server([lambda h: time.sleep(8)]) as server:
        start = time.monotonic()
        assert ask(server, timeout_s=0.5).stop_detail == "the server did not answer within 0.5 s"
        assert ask(server, timeout_s=60.0, limits=Limits(max_seconds=1.0)).stop == "time_limit"
        assert time.monotonic() - start < 6


def test_a_passing_fault_is_retried():
    with Server([lambda h: send(h, 503, b"{}"), completion(ANSWER)]) as server:
        assert ask(server, max_retries=2).answer == "grey"


def test_no_server_at_all():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    policy = EndpointPolicy("m", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
    runner = Runner(policy, Executor({}), settings=ToolSettings())
    (rollout,) = runner.run([(Task(question="q", medium=image_medium(background(1), "g")), 0)])
    assert rollout.trajectory.stop == "policy_error" and "no connection" in rollout.trajectory.stop_detail


def test_missing_settings_are_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="--model"):
        EndpointPolicy("")
    with pytest.raises(ConfigError, match="--url"):
        EndpointPolicy("m")
