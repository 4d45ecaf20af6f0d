"""The agent as a model of lmms-eval and VLMEvalKit: small stand-ins of their base classes and requests, real runs of a scripted policy."""

from __future__ import annotations

import io
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pixelis import harness
from pixelis.core.errors import ConfigError, DataError, NotInstalled
from pixelis.core.media import open_medium, png_bytes
from pixelis.core.store import open_run
from pixelis.data.world.encode import mp4_bytes
from pixelis.eval.harness import lmms_eval, vlmevalkit
from pixelis.eval.harness.asker import Asker, Question, cut, worded
from pixelis.eval.harness.lmms_eval import LmmsEvalAnswers
from pixelis.eval.harness.visuals import picture_png
from pixelis.eval.harness.vlmevalkit import VlmEvalKitAnswers
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

SETTINGS = ToolSettings()


class Noting(ScriptedPolicy):
    """Answers with what it was asked and shown, and notes the seeds."""

    def __init__(self, turns=None):
        super().__init__(turns or (lambda task: [f"<answer>{task.question}|{task.medium.kind}|{task.medium.frame(0)[0, 0, 0]}</answer>"]))
        self.seeds: list[int] = []

    def open(self, task, *, seed):
        self.seeds.append(seed)
        return super().open(task, seed=seed)


class FakeLmms:
    """What the adapter needs of `lmms_eval.api.model.lmms`."""

    def __init__(self):
        self.task_dict = {}


class FakeBaseModel:
    """What the adapter needs of `vlmeval.vlm.base.BaseModel`: it refuses what the class does not allow, then hands over the parts."""

    def generate(self, message, dataset=None):
        assert all(part["type"] in self.allowed_types for part in message)
        return self.generate_inner(message, dataset)


def grey(level: int, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (32, 24), (level, level, level)).convert(mode)


def asker(folder, policy=None, **options) -> Asker:
    options = {"harness": "lmms-eval", "run_folder": folder, **options}
    return Asker(policy or Noting(), Executor({"ZOOM": ZoomTool()}), SETTINGS, **options)


def lmms_model(folder, documents, policy=None, **options) -> LmmsEvalAnswers:
    class Model(LmmsEvalAnswers, FakeLmms):
        open_asker = staticmethod(lambda **given: asker(folder, policy, **options, **given))

    model = Model(batch_size=1, device="cuda:0")
    model.task_dict = {"toy": {"test": documents}}
    return model


def simple(number, *, text="What?", repeats=None, **options):
    """A request of the kind "simple", as lmms-eval builds it."""
    args = (text, options, lambda document: document["visuals"], number, "toy", "test")
    return SimpleNamespace(args=args, task_name="toy", doc_id=number)


def chat(number, *, content=None, **options):
    """A request of the kind "chat"."""

    def messages(document):
        shown = [{"type": "image", "url": visual} for visual in document["visuals"]]
        return [{"role": "user", "content": content or [*shown, {"type": "text", "text": "What?"}]}]

    return SimpleNamespace(args=("", messages, options, number, "toy", "test"), task_name="toy", doc_id=number)


def vlm_model(folder, policy=None) -> VlmEvalKitAnswers:
    class Model(VlmEvalKitAnswers, FakeBaseModel):
        open_asker = staticmethod(lambda **given: asker(folder, policy, harness="vlmevalkit", **given))

    return Model()


# ---------------------------------------------------------------- lmms-eval


def test_answers_come_in_the_order_of_the_requests(tmp_path):
    documents = [{"visuals": [grey(level)]} for level in range(40)]  # more than two chunks
    order = [7, 3, 39, 0, *range(10, 38)]
    model = lmms_model(tmp_path, documents, num_parallel=3, versions={"lmms-eval": "0.7"})
    assert model.generate_until([simple(n, text=f"Q{n}") for n in order]) == [f"Q{n}|image|{n}" for n in order]
    stored = list(open_run(tmp_path).trajectories())
    assert [t.task_id for t in stored] == [f"toy/test/{n}" for n in order]  # each score can be traced to its document
    blob = open_run(tmp_path).blob(stored[0].medium.sha256)  # the picture, which no file holds, is kept
    assert open_medium(blob).frame(0)[0, 0, 0] == 7
    about = open_run(tmp_path).info
    assert about["harness"] == "lmms-eval" and about["policy"]["name"] == "scripted" and about["versions"]["lmms-eval"] == "0.7"


def test_both_kinds_of_request_ask_the_same(tmp_path):
    documents = [{"visuals": [grey(9)]}]
    model = lmms_model(tmp_path, documents)
    args = chat(0).args
    assert model.generate_until([simple(0)]) == ["What?|image|9"]
    assert model.generate_until([chat(0)]) == ["What?|image|9"]
    assert model.generate_until([SimpleNamespace(args=args[1:], task_name="toy")]) == ["What?|image|9"]  # without the text in front
    assert len(list(open_run(tmp_path).trajectories())) == 1  # one question, asked once
    texts = [{"type": "text", "text": "Look:"}, {"type": "image", "url": grey(5)}, {"type": "text", "text": "Which?"}]
    assert model.generate_until([chat(0, content=texts)]) == ["Look:\nWhich?|image|5"]


def test_until_ends_the_answer_and_a_token_limit_does_not(tmp_path):
    policy = ScriptedPolicy(["<answer>red and\n\nblue.</answer>"])
    model = lmms_model(tmp_path, [{"visuals": [grey(1)]}], policy)
    assert model.generate_until([simple(0, until=["\n\n"], max_new_tokens=1, temperature=0)]) == ["red and"]
    assert model.generate_until([simple(0, until="and")]) == ["red "]
    assert model.generate_until([simple(0, max_new_tokens=1)]) == ["red and\n\nblue."]
    assert [t.answer for t in open_run(tmp_path).trajectories()] == ["red and\n\nblue."]  # the run keeps what was said
    assert cut("abc", ["", "x", "c", "b"]) == "a"


def test_no_answer_is_an_empty_text_and_is_counted(tmp_path):
    model = lmms_model(tmp_path, [{"visuals": [grey(1)]}, {"visuals": [grey(2)]}], ScriptedPolicy(["I will not say."]))
    assert model.generate_until([simple(0), simple(1)]) == ["", ""]
    assert model.asker.summary().startswith("lmms-eval: 2 questions, 2 newly run, 2 without an answer (2 no_action); trajectories in ")


def test_a_policy_that_fails_is_said(tmp_path, caplog):
    def turns(task):
        raise RuntimeError("the server is down")

    assert lmms_model(tmp_path, [{"visuals": [grey(1)]}], ScriptedPolicy(turns)).generate_until([simple(0)]) == [""]
    assert "toy/test/0: the policy failed (RuntimeError: the server is down" in caplog.text


def test_a_killed_evaluation_goes_on(tmp_path):
    documents = [{"visuals": [grey(level)]} for level in range(3)]
    first = lmms_model(tmp_path, documents)
    first.generate_until([simple(0), simple(1)])
    first.asker.close()
    policy = Noting()
    again = lmms_model(tmp_path, documents, policy)
    assert again.generate_until([simple(n) for n in range(3)]) == [f"What?|image|{n}" for n in range(3)]
    assert len(policy.seeds) == 1 and "3 questions, 1 newly run, 0 without" in again.asker.summary()
    again.asker.close()
    with pytest.raises(DataError, match=r"holds another run \(seed 0 instead of 4\)"):
        lmms_model(tmp_path, documents, seed=4)


def test_repetitions_of_one_request_are_sampled_anew(tmp_path):
    policy = Noting()
    model = lmms_model(tmp_path, [{"visuals": [grey(1)]}], policy, seed=5)
    assert len(model.generate_until([simple(0)] * 3)) == 3  # lmms-eval repeats a request as often as the task says
    assert sorted(policy.seeds) == [5, 6, 7]
    model.generate_until([simple(0)] * 2)  # and the same repetitions again are the same trajectories
    assert len(policy.seeds) == 3


def test_a_video_path(tmp_path):
    frames = [np.full((16, 16, 3), 100, np.uint8)] * 4
    (tmp_path / "clip.mp4").write_bytes(data := mp4_bytes(frames, fps=2, width=16, height=16))
    model = lmms_model(tmp_path / "run", [{"visuals": [str(tmp_path / "clip.mp4")]}], keep_media=True)
    (answer,) = model.generate_until([simple(0)])
    assert answer.startswith("What?|video|") and abs(int(answer.rpartition("|")[2]) - 100) <= 6
    (stored,) = open_run(tmp_path / "run").trajectories()
    assert stored.medium.name == "clip.mp4" and open_run(tmp_path / "run").blob(stored.medium.sha256) == data
    missing = lmms_model(tmp_path / "other", [{"visuals": ["/nowhere/clip.mp4"]}])
    with pytest.raises(DataError, match=r"toy/test/0: clip\.mp4: cannot be opened"):
        missing.generate_until([simple(0)])


def test_what_the_agent_cannot_be_asked_is_said_with_the_document(tmp_path):
    documents = [{"visuals": [grey(1), grey(2)]}, {"visuals": []}, {"visuals": [{"array": [0.0], "sampling_rate": 16000}]}]
    model = lmms_model(tmp_path, documents)
    with pytest.raises(ConfigError, match=r"toy/test/0: 2 images or videos \(Image, Image\) in one question, and the agent looks at one"):
        model.generate_until([simple(0)])
    with pytest.raises(ConfigError, match="toy/test/1: neither image nor video in one question"):
        model.generate_until([chat(1)])
    with pytest.raises(ConfigError, match="toy/test/2: it shows a dict"):
        model.generate_until([simple(2)])
    with pytest.raises(ConfigError, match="toy/test/1: it holds audio"):
        model.generate_until([chat(1, content=[{"type": "audio", "url": "x.wav"}])])
    documents[1]["visuals"] = [grey(3)]
    with pytest.raises(ConfigError, match="toy/test/1: the question is empty"):
        model.generate_until([simple(1, text="<image>\n")])
    answered = SimpleNamespace(args=("", lambda _: [{"role": "assistant", "content": "A"}], {}, 1, "toy", "test"))
    with pytest.raises(ConfigError, match="toy/test/1: it shows answers to copy"):
        model.generate_until([answered])
    assert not list(open_run(tmp_path).trajectories())


def test_likelihoods_and_rounds_are_refused(tmp_path):
    model = lmms_model(tmp_path, [{"visuals": [grey(1)]}])
    with pytest.raises(ConfigError, match="toy: 2 requests want the likelihood of given texts"):
        model.loglikelihood([simple(0), simple(0)])
    with pytest.raises(ConfigError, match="toy: 1 requests go on after the first answer"):
        model.generate_until_multi_round([simple(0)])


def test_a_damaged_picture_names_its_document(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "PNG")
    cut_off = Image.open(io.BytesIO(file.getvalue()[:2000]))  # opens, and fails when its pixels are wanted
    documents = [{"visuals": [grey(1)]}, {"visuals": [cut_off]}]
    model = lmms_model(tmp_path, documents)
    with pytest.raises(DataError, match=r"toy/test/1: its image or video cannot be read \((OSError|SyntaxError): .*download"):
        model.generate_until([simple(0), simple(1)])

    def converted(document):  # as most tasks do it themselves
        return [document["visuals"][0].convert("RGB")]

    request = SimpleNamespace(args=("What?", {}, converted, 1, "toy", "test"))
    with pytest.raises(DataError, match=r"toy/test/1: its image or video cannot be read"):
        model.generate_until([request])
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    documents[1]["visuals"] = [str(tmp_path / "bad.jpg")]
    with pytest.raises(DataError, match=r"toy/test/1: bad\.jpg: .*JPEG image with a damaged or cut header"):
        model.generate_until([simple(1)])


# ---------------------------------------------------------------- VLMEvalKit


def test_a_message_of_vlmevalkit(tmp_path):
    (tmp_path / "12.png").write_bytes(png_bytes(np.full((8, 8, 3), 77, np.uint8)))
    model = vlm_model(tmp_path / "run")
    message = [
        {"type": "text", "value": "Hint: look."},
        {"type": "image", "value": str(tmp_path / "12.png")},
        {"type": "text", "value": "How many?\nA. 1\nB. 2"},
    ]
    assert model.generate(message, dataset="MMStar") == "Hint: look.\nHow many?\nA. 1\nB. 2|image|77"
    (stored,) = open_run(tmp_path / "run").trajectories()
    assert stored.task_id == "MMStar/12.png"  # VLMEvalKit names an image file after its item
    with pytest.raises(ConfigError, match=r"MMStar/12\.png: 2 images or videos \(12\.png, 12\.png\)"):
        model.generate([message[1], message[1], message[2]], dataset="MMStar")
    with pytest.raises(ConfigError, match="MMStar: it holds audio"):
        model.generate_inner([{"type": "audio", "value": "x.wav"}], "MMStar")
    with pytest.raises(ConfigError, match="one question: neither image nor video"):
        model.generate([{"type": "text", "value": "How many?"}])


def test_what_vlmevalkit_reads_off_the_class(tmp_path):
    model = vlm_model(tmp_path)
    assert model.VIDEO_LLM and not model.INTERLEAVE and not model.is_api  # a path instead of chosen frames; one question at a time
    assert not hasattr(model, "chat_inner")  # data sets of several turns are refused by VLMEvalKit


# ---------------------------------------------------------------- pictures and words


def test_pictures_in_memory_are_shown_as_a_file_would_be():
    def first(picture):
        with open_medium(picture_png(picture)) as medium:
            return medium.frame(0)[0, 0].tolist()

    assert first(grey(130)) == first(grey(130, "L")) == first(grey(130, "CMYK")) == [130, 130, 130]
    assert first(Image.new("RGBA", (4, 4), (255, 0, 0, 0))) == [255, 255, 255]  # nothing of it is seen: white
    assert first(Image.new("RGBA", (4, 4), (255, 0, 0, 51))) == [255, 204, 204]  # a fifth red: 255 - 255/5
    assert first(Image.fromarray(np.full((4, 4), 65535, np.uint16))) == [255, 255, 255]  # 16 bits are scaled
    assert first(Image.fromarray(np.full((4, 4), 32768, np.uint16))) == [128, 128, 128]  # 32768 * 255 / 65535 = 127.5; cut, it were 255
    assert picture_png(grey(1)) == picture_png(grey(1))
    with pytest.raises(DataError, match="0x5 pixels"):
        picture_png(Image.new("RGB", (0, 5)))


def test_placeholders_go_and_the_rest_of_a_question_stays():
    question = Question(id="x", text="<image>\nIn <image 1>, is a < b?", visuals=())
    assert worded(question) == "In <image 1>, is a < b?"


# ---------------------------------------------------------------- registration


def test_registration_in_each_generation_of_lmms_eval():
    made = {}
    registry = SimpleNamespace(register_manifest=lambda manifest, overwrite: made.update(manifest, overwrite=overwrite))
    lmms_eval.register(SimpleNamespace(MODEL_REGISTRY_V2=registry), dict, chat="a.Chat", simple="a.Simple")
    assert made == {"model_id": "pixelis", "chat_class_path": "a.Chat", "simple_class_path": "a.Simple", "overwrite": True}
    middle = SimpleNamespace(AVAILABLE_SIMPLE_MODELS={}, AVAILABLE_MODELS={})
    lmms_eval.register(middle, None, chat="a.Chat", simple="a.Simple")
    assert middle.AVAILABLE_SIMPLE_MODELS == {"pixelis": "a.Simple"} and not middle.AVAILABLE_MODELS
    old = SimpleNamespace(AVAILABLE_MODELS={})
    lmms_eval.register(old, None, chat="a.Chat", simple="a.Simple")
    assert old.AVAILABLE_MODELS == {"pixelis": "a.Simple"}


def test_registration_in_vlmevalkit():
    class Model:
        def __init__(self, **options):
            self.options = options

    vlm, supported = SimpleNamespace(), {}
    vlmevalkit.register(vlm, supported, Model, policies=["planner"])
    assert vlm.Pixelis is Model and supported["pixelis-planner"]().options == {"policy": "planner", "run": "runs/vlmevalkit-planner"}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of stand-in packages that can be imported, and is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    harness.model_class.cache_clear()
    yield tmp_path
    harness.model_class.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lmms_eval", "vlmeval")]:
        del sys.modules[name]


def write(folder, **files):
    for path, text in files.items():
        path = folder / (path.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for inner in [path for path in folder.rglob("*") if path.is_dir()]:
        (inner / "__init__.py").touch()


@pytest.mark.skipif(any(map(find_spec, ("lmms_eval", "vlmeval"))), reason="a harness is installed")
def test_without_the_harness_its_class_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, command in (("LmmsEvalChat", "pip install lmms-eval"), ("Pixelis", "git clone .*VLMEvalKit && pip install")):
        with pytest.raises(NotInstalled, match=command):
            getattr(harness, name)
    for start in (["lmms-eval", "--model", "pixelis"], ["vlmevalkit", __file__]):
        with pytest.raises(NotInstalled):
            harness.main(start)
    with pytest.raises(AttributeError):
        harness.NoSuchClass  # noqa: B018
    with pytest.raises(ConfigError, match=r"usage: python -m pixelis\.harness"):
        harness.main([])


def test_lmms_eval_from_its_command_line(packages, monkeypatch):
    write(
        packages,
        lmms_eval__api__model="class lmms:\n    def __init__(self):\n        self.task_dict = {}\n",
        lmms_eval__models__registry_v2="class ModelManifest:\n    def __init__(self, **parts):\n        self.parts = parts\n",
        lmms_eval__started="calls = []\n",
    )
    (packages / "lmms_eval" / "models" / "__init__.py").write_text(
        "class MODEL_REGISTRY_V2:\n    parts = {}\n    @classmethod\n    def register_manifest(cls, manifest, overwrite):\n"
        "        cls.parts.update(manifest.parts)\n"
    )
    (packages / "lmms_eval" / "__main__.py").write_text(
        "import sys\nfrom lmms_eval.started import calls\ndef cli_evaluate():\n    calls.append(sys.argv)\n"
    )
    monkeypatch.setattr(sys, "argv", ["x"])
    harness.main(["lmms-eval", "--model", "pixelis"])
    import lmms_eval as fake
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.started import calls

    assert calls == [["lmms-eval", "--model", "pixelis"]] and fake.__file__.startswith(str(packages))
    assert MODEL_REGISTRY_V2.parts == harness.lmms_eval_manifest().parts
    assert MODEL_REGISTRY_V2.parts["chat_class_path"] == "pixelis.harness.LmmsEvalChat"
    assert not harness.LmmsEvalChat.is_simple and harness.LmmsEvalSimple.is_simple
    assert harness.LmmsEvalChat is harness.LmmsEvalChat and harness.LmmsEvalChat.__module__ == "pixelis.harness"
    model = harness.LmmsEvalChat(policy="planner", run=str(packages / "run"), seed=3, no_tools=True, batch_size=1)
    model.task_dict = {"toy": {"test": [{"visuals": [grey(1)]}]}}
    (answer,) = model.generate_until([chat(0)])
    (stored,) = open_run(packages / "run").trajectories()
    assert answer == (stored.answer or "") and stored.policy.name == "planner" and stored.seed == 3
    assert len(stored.settings["disabled"]) == 6


def test_vlmevalkit_from_its_script(packages, monkeypatch):
    write(packages, vlmeval__vlm__base="class BaseModel:\n    pass\n", vlmeval__config="supported_VLM = {}\n")
    (packages / "run.py").write_text(
        "import sys\nimport vlmeval.vlm\nfrom vlmeval.config import supported_VLM\n"
        "assert __name__ == '__main__'\nsupported_VLM['seen'] = (sys.argv[1:], vlmeval.vlm.Pixelis)\n"
    )
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    harness.main(["vlmevalkit", str(packages / "run.py"), "--model", "pixelis-planner"])
    from vlmeval.config import supported_VLM

    assert supported_VLM["seen"] == (["--model", "pixelis-planner"], harness.Pixelis)
    assert {"pixelis-planner", "pixelis-nano-sft"} <= set(supported_VLM) and "pixelis-vlm" not in supported_VLM
    with pytest.raises(ConfigError, match=r"name the run\.py"):
        harness.main(["vlmevalkit", str(packages / "walk.py")])


def test_wrong_options_are_messages(tmp_path):
    folder = tmp_path / "run"
    for options, said in (
        ({}, "run=FOLDER"),
        ({"pretrained": "x", "run": folder}, "no option pretrained: they are adapter, media, model, no_tools"),
        ({"run": folder, "policy": "nobody"}, "there is no policy 'nobody'"),
        ({"run": folder, "seed": "one"}, "seed is a whole number, not 'one'"),
        ({"run": folder, "parallel": 0}, "0 trajectories at once"),
        ({"run": folder, "no_tools": "yes"}, "no_tools is true or false"),
    ):
        with pytest.raises(ConfigError, match=said):
            harness.open_asker("lmms-eval", **options)
    assert not folder.exists()  # a wrong word leaves nothing behind
