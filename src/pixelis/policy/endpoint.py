"""The `endpoint` policy: any OpenAI-compatible server, through the official client.

Calls travel as Hermes text, or as native tool calls where the server has them; either way the turn that is recorded and
executed is the same text. Whatever the server does wrong (stalls, answers 500, cuts the answer, sends nonsense or endless
data) is a `PolicyError` of one session.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from pixelis.core import jsontext
from pixelis.core.arguments import tool_schemas
from pixelis.core.errors import ConfigError, NotInstalled
from pixelis.core.grammar import CALL_CLOSE, CALL_OPEN
from pixelis.core.trajectory import PolicyInfo, TokenRun
from pixelis.policy.base import Observation, PolicyError, Task
from pixelis.policy.prompt import GUIDE, ImagePart, Prompting, question_parts, system_text

MAX_ANSWER_BYTES = 8 << 20


class EndpointPolicy:
    """A model behind an OpenAI-compatible server.

    Args:
        model: the server's name of it.
        base_url: such as http://localhost:8000/v1; None takes OPENAI_BASE_URL, then OpenAI's own.
        api_key: None takes OPENAI_API_KEY; a local server needs none.
        native_tools: offer the tools as functions; the server must support them. Otherwise they stand in the system message.
        temperature, max_tokens: sampling, per turn.
        logit_bias: added to the logits of tokens, by their ids in the server's vocabulary, such as those of `<tool_call>`; empty asks
            for none, as not every server takes it.
        timeout_s: longest wait for one answer; max_retries: for connection errors, 429 and 5xx, with growing pauses.
        max_pixels, max_frames: how large an image, and how many frames of a video, are shown.

    Raises:
        NotInstalled: the openai package is missing.
        ConfigError: no model is named.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        native_tools: bool = False,
        temperature: float = 0.7,
        max_tokens: int = 1024,
        logit_bias: Mapping[str, float] = {},
        timeout_s: float = 60.0,
        max_retries: int = 2,
        max_pixels: int = 1024 * 1024,
        max_frames: int = 16,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise NotInstalled("the openai client", "pip install 'pixelis[endpoint]'") from None
        if not model:
            raise ConfigError("the endpoint policy needs the model's name: --model NAME")
        self._openai = openai
        key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if base_url or os.environ.get("OPENAI_BASE_URL") else None)
        if key is None:
            raise ConfigError("no server to ask: give --url http://HOST:PORT/v1 of a local server, or set OPENAI_API_KEY")
        self._client_options = {"api_key": key, "base_url": base_url, "timeout": timeout_s, "max_retries": max_retries}
        self.native_tools = native_tools
        self.prompting = Prompting(max_pixels=max_pixels, max_frames=max_frames)
        self._request = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        sampling = {"temperature": temperature, "max_tokens": max_tokens, "native_tools": native_tools}
        if native_tools:
            self._request["tools"] = tool_schemas()
        if logit_bias:
            self._request["logit_bias"] = sampling["logit_bias"] = dict(logit_bias)
        self._clients: dict[int, Any] = {}
        self.info = PolicyInfo(name="endpoint", version=model, sampling=sampling)

    def open(self, task: Task, *, seed: int) -> EndpointSession:
        return EndpointSession(self, task, seed)

    def close(self) -> None:
        self._clients.clear()

    async def complete(self, messages: list[dict], seed: int) -> Any:
        """The server's message.

        Raises:
            PolicyError: it sent none; the text says what it did instead.
        """
        openai = self._openai
        try:
            response = await self._client().chat.completions.create(messages=messages, seed=seed % 2**31, **self._request)
            return response.choices[0].message
        except openai.APITimeoutError:
            raise PolicyError(f"the server did not answer within {self._client_options['timeout']:g} s") from None
        except openai.APIConnectionError as error:
            raise PolicyError(f"no connection to the server: {error.__cause__ or error}") from None
        except openai.APIStatusError as error:
            raise PolicyError(f"the server answered {error.status_code}: {str(error.message)[:200]}") from None
        except openai.OpenAIError as error:
            raise PolicyError(f"the server's answer is unusable: {str(error)[:200]}") from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise PolicyError(f"the server's answer is no chat completion ({type(error).__name__}: {str(error)[:120]})") from None

    def _client(self) -> Any:
        """One client per event loop: its connections belong to the loop that made them."""
        import asyncio

        httpx = _http_library()
        loop = id(asyncio.get_running_loop())
        if loop not in self._clients:
            transport = _bounded(httpx.AsyncHTTPTransport())
            http = httpx.AsyncClient(transport=transport, timeout=self._client_options["timeout"])
            self._clients = {loop: self._openai.AsyncOpenAI(http_client=http, **self._client_options)}
        return self._clients[loop]


def _bounded(inner: Any) -> Any:
    """A transport that refuses to read more than `MAX_ANSWER_BYTES`: an endless answer must not fill the memory."""
    httpx = _http_library()

    class BoundedStream(httpx.AsyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            num_bytes = 0
            async for part in self._stream:
                num_bytes += len(part)
                if num_bytes > MAX_ANSWER_BYTES:
                    raise httpx.RemoteProtocolError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
                yield part

        async def aclose(self) -> None:
            await self._stream.aclose()

    class BoundedTransport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await inner.handle_async_request(request)
            response.stream = BoundedStream(response.stream)
            return response

        async def aclose(self) -> None:
            await inner.aclose()

    return BoundedTransport()


def _http_library() -> Any:
    """The HTTP library that the installed openai client stands on: httpx2 since its version 3, httpx before."""
    import openai

    if int(openai.__version__.split(".")[0]) >= 3:
        import httpx2

        return httpx2
    import httpx

    return httpx


class EndpointSession:
    """One conversation: the messages so far, sent whole with each turn."""

    def __init__(self, policy: EndpointPolicy, task: Task, seed: int) -> None:
        self._policy = policy
        self._seed = seed
        system = GUIDE if policy.native_tools else system_text()
        parts = question_parts(task, policy.prompting)
        self._messages: list[dict] = [
            {"role": "system", "content": system},
            {"role": "user", "content": [_part(part) for part in parts]},
        ]
        self._call_ids: list[str] = []

    async def act(self) -> str:
        message = await self._policy.complete(self._messages, self._seed)
        content = message.content if isinstance(getattr(message, "content", None), str) else ""
        calls = getattr(message, "tool_calls", None) or []
        if not calls:
            self._call_ids = []
            self._messages.append({"role": "assistant", "content": content})
            return content
        self._call_ids = [str(call.id) for call in calls]
        written = [(str(call.function.name), str(call.function.arguments)) for call in calls]
        self._messages.append(
            {
                "role": "assistant",
                "content": content,
                "tool_calls": [
                    {"id": i, "type": "function", "function": {"name": n, "arguments": a}}
                    for i, (n, a) in zip(self._call_ids, written, strict=True)
                ],
            }
        )
        return "\n".join([content, *(f"{CALL_OPEN}\n{_hermes(name, arguments)}\n{CALL_CLOSE}" for name, arguments in written)]).strip()

    def observe(self, observation: Observation) -> None:
        image = [] if observation.image_png is None else [_data_url(observation.image_png)]
        if self._call_ids:  # a server wants an answer to every call id; images are legal only in a user's message
            self._messages += [{"role": "tool", "tool_call_id": i, "content": observation.response} for i in self._call_ids]
            if image:
                self._messages.append({"role": "user", "content": image})
        else:
            self._messages.append({"role": "user", "content": [{"type": "text", "text": observation.response}, *image]})

    def tokens(self) -> tuple[TokenRun, ...]:
        return ()

    def close(self) -> None:
        return None


def _hermes(name: str, arguments: str) -> str:
    """A native call as Hermes JSON; arguments that are no JSON stay as they are, and the grammar refuses them."""
    try:
        value = jsontext.loads(arguments or "{}")
        return jsontext.dumps({"name": name, "arguments": value})
    except ValueError:
        return f'{{"name": {jsontext.dumps(name)}, "arguments": {arguments[:2000]}}}'


def _part(part: str | ImagePart) -> dict:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return _data_url(_png(part.image_HWC))


def _data_url(png: bytes) -> dict:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(png).decode("ascii")}}


def _png(image_HWC: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image_HWC).save(data, "PNG", compress_level=3)
    return data.getvalue()
