"""The local model as a policy: its sampler against transformers' own forward pass, seeds, limits, failures."""

from __future__ import annotations

import asyncio
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.media import open_medium
from pixelis.core.trajectory import TokenRun
from pixelis.policy.adapters import add_adapters, lora_parameters
from pixelis.policy.base import Observation, PolicyError, Task, TokenLimit
from pixelis.policy.exposure import at_exposure, headroom, rounded
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm import VlmPolicy, logp_of
from pixelis.policy.vlm_decode import Decoder, Piece
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_sampling import Sampling
from pixelis.testing.tiny_vlm import make_checkpoint

TOLERANCE_NATS = 1e-4


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def task_of(seed: int, question: str = "What is this?") -> Task:
    return Task(question=question, medium=open_medium(png(noise(seed, 60 + 10 * seed, 90))))


CROP = png(noise(99, 70, 50))
CROP_NAME = hashlib.sha256(CROP).hexdigest()
TEXT_RESULT = Observation(response='<tool_response>\n{"step": 1}\n</tool_response>')
CROP_RESULT = Observation(response='<tool_response>\n{"step": 2}\n</tool_response>', image_png=CROP, image_sha256=CROP_NAME)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return load_checkpoint(make_checkpoint(tmp_path_factory.mktemp("tiny"), vocab_size=600, max_pixels=128 * 128))


@pytest.fixture(scope="module")
def policy(checkpoint):
    made = make(checkpoint)
    yield made
    made.close()


def make(checkpoint, **settings) -> VlmPolicy:
    settings = {
        "max_new_tokens": 12,
        "num_slots": 3,
        "max_context": 2048,
        "prompting": Prompting(guide="Look.", has_schemas=False),
    } | settings
    return VlmPolicy(checkpoint, **settings)


async def converse(policy: VlmPolicy, task: Task, seed: int, *, num_turns: int = 3) -> tuple[list[str], tuple[TokenRun, ...]]:
    """Turns with a text result and a crop in between, and what was recorded."""
    session = policy.open(task, seed=seed)
    texts = [await session.act()]
    for turn in range(num_turns - 1):
        await asyncio.sleep(0.002 * (seed % 3))
        session.observe(CROP_RESULT if turn % 2 else TEXT_RESULT)
        texts.append(await session.act())
    runs = session.tokens()
    session.close()
    session.close()
    return texts, runs


async def at_once(policy: VlmPolicy, jobs: list[tuple[Task, int]]):
    return await asyncio.gather(*(converse(policy, task, seed) for task, seed in jobs))


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def images_for(policy: VlmPolicy, task: Task) -> dict:
    return policy.prompt_images(task) | {CROP_NAME: CROP}


def gap(policy: VlmPolicy, runs, images) -> float:
    recorded = [run.logp for run in runs if run.role == "policy"]
    scored = logp_of(policy, runs, images)
    assert [len(a) for a in recorded] == [len(b) for b in scored]
    return max(abs(a - b) for one, other in zip(recorded, scored, strict=True) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_sampled_logp_equals_a_full_forward_pass(checkpoint, temperature):
    """More conversations than lanes, results with and without images, groups that share a prompt: all as if read in one go."""
    policy = make(checkpoint, temperature=temperature)
    jobs = [(task_of(image), seed) for image in (1, 2) for seed in range(4)]
    for (task, _), (_, runs) in zip(jobs, run(at_once(policy, jobs)), strict=True):
        assert [r.role for r in runs] == ["prompt", "policy", "tool", "policy", "tool", "policy"] + ["tool"] * (len(runs) == 7)
        assert gap(policy, runs, images_for(policy, task)) <= TOLERANCE_NATS
    policy.close()


def test_conversations_see_at_lifts_of_their_own(checkpoint):
    """One question at three lifts at once: other features and names, one medium; scored from what was shown and from what it is."""
    policy, task = make(checkpoint), Task(question="What is this?", medium=open_medium(png(noise(1, 70, 90) // 2)))
    room = policy.headroom(task.medium)
    assert room == headroom([task.medium.frame(0)]) > 0
    half, full = rounded(room / 2), rounded(room)

    async def scenario():
        sessions = [policy.open(task, seed=0, lift=lift) for lift in (None, 1.0, 0.5)]
        for session in sessions:
            await session.act()
            session.observe(CROP_RESULT)
        await asyncio.gather(*(session.act() for session in sessions))
        found = [session.tokens() for session in sessions]
        for session in sessions:
            session.close()
        return found

    plain, bright, between = run(scenario())
    own = task.medium.sha256
    assert [runs[0].images for runs in (plain, bright, between)] == [(own,), (at_exposure(own, full),), (at_exposure(own, half),)]
    crops = [(CROP_NAME,), (at_exposure(CROP_NAME, full),), (at_exposure(CROP_NAME, half),)]
    assert [runs[2].images for runs in (plain, bright, between)] == crops
    assert len({runs[1].logp for runs in (plain, bright, between)}) == 3
    for runs, stops in ((plain, 0.0), (bright, full), (between, half)):
        assert gap(policy, runs, images_for(policy, task)) <= TOLERANCE_NATS
        assert gap(policy, runs, policy.prompt_images(task, exposure=stops) | {CROP_NAME: CROP}) <= TOLERANCE_NATS
    policy.look(1.0)
    assert policy.info.sampling["prompting"]["lift"] == 1.0
    assert run(at_once(policy, [(task, 0)]))[0][1][0].images == bright[0].images
    policy.close()


def test_a_policy_that_sees_at_another_lift_is_another_one(tmp_path):
    folder = make_checkpoint(tmp_path / "tiny", vocab_size=600, max_pixels=128 * 128)

    def version(lift: float) -> str:
        Prompting(lift=lift).save(folder)
        return load_checkpoint(folder).version

    plain = version(0.0)
    assert "lift" not in plain and version(0.75) == f"{plain}, lift 0.75" and version(0.8) == f"{plain}, lift 0.8"
    (folder / "pixelis.json").unlink()
    assert load_checkpoint(folder).version == plain


def test_scoring_sees_the_pixels(policy):
    """The same tokens with black images have other probabilities: nothing is silently blind."""
    task = task_of(1)
    _, runs = run(converse(policy, task, 0))
    black = {name: np.zeros_like(image) for name, image in policy.prompt_images(task).items()}
    black[CROP_NAME] = png(np.zeros((70, 50, 3), np.uint8))
    assert gap(policy, runs, black) > 100 * TOLERANCE_NATS


def test_positions_are_those_of_transformers(policy, checkpoint):
    _, runs = run(converse(policy, task_of(1), 0))
    ids = torch.tensor([[i for r in runs for i in r.ids]])
    grids = [policy.vision.prepare(i)[0] for i in (*policy.prompt_images(task_of(1)).values(), np.asarray(Image.open(io.BytesIO(CROP))))]
    is_image = (ids == policy.format.image_id).int()
    expected, _ = checkpoint.base.model.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=torch.tensor(grids))
    from pixelis.policy.buffer import TokenBuffer

    names = list(dict.fromkeys(name for r in runs for name in r.images))
    buffer = TokenBuffer.load(runs, dict(zip(names, grids, strict=True)), image_id=policy.format.image_id)
    assert np.array_equal(buffer.positions(), expected[:, 0].numpy())


def test_matrix_product_embeds_patches_as_the_convolution_does(checkpoint):
    embed = checkpoint.base.model.visual.patch_embed
    patches = torch.randn(8, 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(embed.forward(patches), type(embed).forward(embed, patches), atol=1e-5)


def test_same_seed_gives_the_same_turns_in_any_company(policy):
    jobs = [(task_of(image), seed) for image in (1, 2) for seed in range(3)]
    together = run(at_once(policy, jobs))
    reversed_order = run(at_once(policy, jobs[::-1]))[::-1]
    alone = [run(converse(policy, *job)) for job in jobs]
    assert [texts for texts, _ in together] == [texts for texts, _ in reversed_order] == [texts for texts, _ in alone]
    assert [[r.ids for r in runs] for _, runs in together] == [[r.ids for r in runs] for _, runs in alone]
    assert len({tuple(texts) for texts, _ in together}) == len(jobs), "different seeds or images give different turns"


def test_a_group_reads_its_prompt_and_encodes_its_image_once(checkpoint):
    policy = make(checkpoint, num_slots=4)
    task = task_of(1)
    run(at_once(policy, [(task, seed) for seed in range(4)]))
    prompt = policy.open(task, seed=9)
    length = len(prompt.tokens()[0].ids)
    results = policy.engine.num_read - length
    # Per conversation: what stands between the turns, and the last token of each turn, which was sampled but not yet read.
    text, crop = (
        policy.format.response(TEXT_RESULT.response),
        policy.format.response(CROP_RESULT.response, policy.vision.take("x", noise(99, 70, 50))),
    )
    assert 4 * (len(text) + len(crop)) <= results <= 4 * (len(text) + len(crop) + 4)
    assert policy.vision.num_encoded == 2
    policy.close()


def test_results_cost_only_their_own_tokens_even_when_the_lane_was_lent(checkpoint):
    policy = make(checkpoint, num_slots=1)
    jobs = [(task_of(1), 0), (task_of(2), 1), (task_of(1), 2)]
    alone = [run(converse(policy, *job)) for job in jobs]
    read = policy.engine.num_read
    again = run(at_once(policy, jobs))  # three conversations take turns on one lane
    assert [texts for texts, _ in again] == [texts for texts, _ in alone]
    assert policy.engine.num_read - read < read, "prompts and images are known by now"
    policy.close()


def test_nothing_reserved_is_ever_sampled(checkpoint):
    policy = make(checkpoint, max_new_tokens=200, temperature=5.0)
    _, runs = run(converse(policy, task_of(1), 0, num_turns=4))
    sampled = [i for r in runs if r.role == "policy" for i in r.ids]
    assert len(sampled) > 200
    assert not set(sampled) & set(policy.format.banned_ids)
    assert max(sampled) < len(checkpoint.tokenizer)
    policy.close()


def biased(checkpoint, words: str, policy_settings: dict | None = None):
    """A policy whose model says `words` whatever it sees: each next token is forced through the output layer's input."""
    policy = make(checkpoint, temperature=0.0, max_new_tokens=64, **(policy_settings or {}))
    ids = checkpoint.tokenizer.encode(words)
    draw = policy.sampling.draw
    counts: dict[int, int] = {}

    class Forced:
        def draw(self, logits, uniform):
            _, logp = draw(logits, uniform)
            step = counts.get(0, 0)
            counts[0] = step + 1
            return [ids[step % len(ids)]] * len(logp), logp

    policy.engine._sampling = Forced()
    return policy, ids


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ('I look.\n<tool_call>\n{"name": "ZOOM"}\n</tool_call> and more', 'I look.\n<tool_call>\n{"name": "ZOOM"}\n</tool_call>'),
        ("Red.\n<answer>red</answer> and more", "Red.\n<answer>red</answer>"),
        ("Well<|im_end|> and more", "Well"),
    ],
)
def test_a_turn_ends_behind_a_call_an_answer_or_the_end_token(checkpoint, words, written):
    policy, _ = biased(checkpoint, words)

    async def scenario():
        session = policy.open(task_of(1), seed=0)
        text = await session.act()
        ended = session.tokens()
        session.observe(TEXT_RESULT)
        return text, ended, session.tokens()

    text, ended, observed = run(scenario())
    assert text == written
    end = policy.format.end_id
    assert [i for r in ended for i in r.ids].count(end) - list(ended[0].ids).count(end) == 1, "one end token, sampled or added"
    if words.startswith("Well"):
        assert [r.role for r in ended] == ["prompt", "policy"] and ended[1].ids[-1] == end
    else:
        assert ended[2] == TokenRun(role="tool", ids=(end,)), "what was not sampled is not the policy's"
    everything = [i for r in observed for i in r.ids]
    assert policy.format.decode(everything).count("<|im_end|>\n<|im_start|>user\n<tool_response>") == 1
    policy.close()


def test_a_result_and_its_image_come_together_or_not_at_all(policy):
    async def scenario():
        session = policy.open(task_of(1), seed=0)
        await session.act()
        before = session.tokens()
        with pytest.raises(PolicyError, match="cannot be shown"):
            session.observe(Observation(response=TEXT_RESULT.response, image_png=b"no image", image_sha256="0" * 64))
        assert session.tokens() == before
        session.observe(CROP_RESULT)
        assert session.tokens()[-1].images == (CROP_NAME,)
        session.close()

    run(scenario())


def test_the_context_ends_with_a_token_limit(checkpoint):
    policy = make(checkpoint, max_context=160)

    async def scenario():
        session = policy.open(task_of(1), seed=0)
        with pytest.raises(TokenLimit):
            for _ in range(30):
                await session.act()
                session.observe(CROP_RESULT)
        assert sum(len(r.ids) for r in session.tokens()) <= 160
        with pytest.raises(TokenLimit):
            await session.act()

    run(scenario())
    tight = make(checkpoint, max_context=40)
    with pytest.raises(TokenLimit, match="of 40 tokens"):
        run(tight.open(task_of(1), seed=0).act())
    policy.close()
    tight.close()


def assert_same(one, two):
    """The same texts and ids; log-probabilities up to rounding, which another batch or buffer changes in the last bits."""
    assert one[0] == two[0]
    assert [(r.role, r.ids, r.images) for r in one[1]] == [(r.role, r.ids, r.images) for r in two[1]]
    for a, b in zip(one[1], two[1], strict=True):
        assert a.logp == pytest.approx(b.logp, abs=1e-5)


def test_a_failing_model_costs_only_its_own_session(checkpoint):
    """One conversation's image features go missing; its companions in the same batch go on."""
    policy = make(checkpoint, num_slots=4)
    expected = run(converse(policy, task_of(2), 1))

    async def scenario():
        broken = policy.open(task_of(1), seed=0)
        await broken.act()
        broken.observe(CROP_RESULT)
        broken._talk.buffer.ids[-20:] = [policy.format.image_id] * 20  # tokens that no feature belongs to
        good = converse(policy, task_of(2), 1)
        outcome = await asyncio.gather(broken.act(), good, return_exceptions=True)
        broken.close()
        return outcome

    failure, good = run(scenario())
    assert isinstance(failure, PolicyError) and "image tokens" in str(failure)
    assert_same(good, expected)
    policy.close()


def test_image_tokens_without_features_never_reach_the_model(checkpoint):
    decoder = Decoder(checkpoint.model, num_lanes=1, image_id=checkpoint.base.config.image_token_id)
    with pytest.raises(RuntimeError, match="1 image tokens, but 0 image features"):
        decoder.read([Piece(0, 0, [5, checkpoint.base.config.image_token_id], torch.zeros(3, 2, dtype=torch.long))])


@pytest.mark.parametrize("adapters", [False, True])
def test_large_models_run_module_by_module_to_the_same_end(tmp_path, adapters):
    model = load_checkpoint(make_checkpoint(tmp_path, vocab_size=600)).model
    image_id = model.config.image_token_id
    if adapters:
        model = add_adapters(model, rank=4).eval()
        with torch.no_grad():
            for parameter in lora_parameters(model, "policy").values():
                parameter.add_(0.1)
    ids = [5, 6, 7, 8, 9]
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids])).logits[0, -1]
        for limit in (0, 10**9):
            decoder = Decoder(model, num_lanes=2, image_id=image_id, fuse_limit=limit)
            decoder.read([Piece(1, 0, ids[:3], torch.arange(3).expand(3, -1))])
            decoder.step([1], [ids[3]], [3], [3])
            assert torch.allclose(decoder.step([1], [ids[4]], [4], [4])[0], expected, atol=1e-4)


def test_cancelling_a_turn_leaves_the_conversation_as_it_was(checkpoint, monkeypatch):
    policy = make(checkpoint, max_new_tokens=400)
    expected = run(converse(policy, task_of(1), 5, num_turns=1))[0]

    async def scenario():
        session = policy.open(task_of(1), seed=5)
        before = session.tokens()
        with monkeypatch.context() as never:
            never.setattr(policy.engine, "_ends_turn", lambda ids: False)  # or a fast machine is done before it is cancelled
            turn = asyncio.create_task(session.act())
            await asyncio.sleep(0.05)
            turn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await turn
        assert session.tokens() == before
        text = await session.act()
        session.close()
        return text, session.tokens()

    text, runs = run(scenario())
    assert [text] == expected
    assert gap(policy, runs, images_for(policy, task_of(1))) <= TOLERANCE_NATS
    policy.close()


def test_closing_the_policy_ends_turns_under_way(checkpoint, monkeypatch):
    policy = make(checkpoint, max_new_tokens=2000)
    monkeypatch.setattr(policy.engine, "_ends_turn", lambda ids: False)  # or a fast machine is done before it is closed

    async def scenario():
        session = policy.open(task_of(1), seed=0)
        turn = asyncio.create_task(session.act())
        await asyncio.sleep(0.05)
        await asyncio.to_thread(policy.close)
        with pytest.raises(PolicyError, match="closed"):
            await turn
        with pytest.raises(PolicyError, match="closed"):
            await policy.open(task_of(1), seed=1).act()
        session.close()

    run(scenario())
    policy.close()
    assert not policy.engine._thread.is_alive()


def test_closing_a_session_ends_its_turn(policy):
    async def scenario():
        session = policy.open(task_of(1), seed=0)
        turn = asyncio.create_task(session.act())
        await asyncio.sleep(0)
        session.close()
        with pytest.raises(PolicyError, match="closed"):
            await turn

    run(scenario())


def test_changed_weights_are_noticed(tmp_path):
    """Also in place and in the middle of a conversation, as a trainer changes them."""
    policy = make(load_checkpoint(make_checkpoint(tmp_path, vocab_size=600, max_pixels=128 * 128)))
    task = task_of(1)
    before = run(converse(policy, task, 0))[0]
    with policy.paused() as model, torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(1.3)
    after, runs = run(converse(policy, task, 0))
    assert after != before
    assert gap(policy, runs, images_for(policy, task)) <= TOLERANCE_NATS
    policy.close()


def test_a_video_is_shown_as_frames_with_their_times(policy, tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 12 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    small = make(policy.checkpoint, prompting=Prompting(guide="Look.", has_schemas=False, max_frames=3))
    task = Task(question="When?", medium=open_medium(path))
    _, runs = run(converse(small, task, 0))
    assert len(runs[0].images) == 3
    assert small.format.decode(runs[0].ids).count(" seconds><|vision_start|>") == 3
    assert gap(small, runs, images_for(small, task)) <= TOLERANCE_NATS
    small.close()


def test_scoring_says_which_image_is_missing(policy):
    _, runs = run(converse(policy, task_of(1), 0))
    with pytest.raises(DataError, match="missing"):
        logp_of(policy, runs, {})


@pytest.mark.parametrize("settings", [{"temperature": -1.0}, {"top_p": 0.0}, {"num_slots": 0}, {"max_new_tokens": 0}])
def test_settings_out_of_range_are_refused(checkpoint, settings):
    with pytest.raises(ConfigError):
        make(checkpoint, **settings)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be loaded"):
        VlmPolicy(tmp_path)


def test_draws_follow_the_probabilities():
    """p = (0.5, 0.3, 0.2) with the last token banned becomes (0.625, 0.375, 0)."""
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(4, 3)
    ids, logp = Sampling(banned_ids=(2,)).draw(logits, [0.0, 0.62, 0.63, 0.999])
    assert ids == [0, 0, 1, 1]
    assert logp == pytest.approx([np.log(0.625)] * 2 + [np.log(0.375)] * 2)
    # top-p 0.4 keeps the likeliest token alone; log-probabilities stay those before the cut.
    ids, logp = Sampling(top_p=0.4).draw(logits, [0.0, 0.3, 0.6, 0.999])
    assert ids == [0, 0, 0, 0] and logp == pytest.approx([np.log(0.5)] * 4)
    # Temperature 2 flattens: sqrt(0.5) : sqrt(0.3) : sqrt(0.2).
    roots = np.sqrt([0.5, 0.3, 0.2])
    _, logp = Sampling(temperature=2.0).draw(logits[:1], [0.0])
    assert logp == pytest.approx([np.log(roots[0] / roots.sum())])
