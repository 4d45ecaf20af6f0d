"""Six public benchmarks by their official scoring rules. `run.evaluate_bench` asks a policy, `run.score_bench_run` scores again offline."""

from pixelis.eval.bench import infographicvqa, mmbench, mvbench, videommmu, vsibench, vstar
from pixelis.eval.bench.base import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "vstar": vstar,
    "mmbench": mmbench,
    "mvbench": mvbench,
    "infographicvqa": infographicvqa,
    "videommmu": videommmu,
    "vsibench": vsibench,
}
