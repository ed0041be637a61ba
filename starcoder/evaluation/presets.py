"""The settings of the paper's evaluations, by name: `starcoder evaluate CHECKPOINT --preset humaneval`.

The paper's global settings are n = 200 samples, temperature 0.2 and top-p 0.95 for pass@1, temperature 0.8 for pass@10
and pass@100, and the unbiased estimator of Chen et al. 2021. The benchmarks' own stop strings belong to the tasks
(`Task.defaults` and `Problem.stop`); only the assistant's prompt has others (`prompting.Style.stop`). Lengths are the
tokens of a completion: the harness counted prompt and completion together, so its limits are upper bounds here.
"""

from dataclasses import dataclass, replace

from starcoder.errors import UserError

_HARNESS = "bigcode-evaluation-harness"
_N = f"n and top-p: {_HARNESS}, docs/README.md"
_RECALLED = "recalled from the paper"


@dataclass(frozen=True)
class Preset:
    """The settings of one of the paper's evaluations; None leaves a setting to the task.

    Args:
        name: what `--preset` calls it.
        description: what it measures.
        source: where its settings come from.
        tasks: keys of its tasks.
        n_samples: completions of each problem.
        temperature: of the sampling; 0 takes the likeliest token.
        top_p: share of the probability that is sampled from.
        max_new_tokens: tokens of a completion at most.
        k: the k of pass@k.
        prompt: the prompt style, one of `starcoder.evaluation.prompting.STYLES`.
        groups: the rows of the tasks that belong to it; empty for all.
        limit: problems of each row of a table, the first ones; None for all.
    """

    name: str
    description: str
    source: str
    tasks: tuple[str, ...]
    n_samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    k: tuple[int, ...] | None = None
    prompt: str = "plain"
    groups: tuple[str, ...] = ()
    limit: int | None = None


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UserError: when there is none; it lists those that exist.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _passing(name: str, description: str, source: str, *tasks: str, n: int = 200, tokens: int = 512) -> Preset:
    """The paper's settings for pass@1."""
    return Preset(name, description, source, tasks, n, 0.2, 0.95, tokens, k=(1,))


_HUMANEVAL = _passing(
    "humaneval", "HumanEval, 164 problems, pass@1", f"paper §6.1.1; {_N}; temperature {_RECALLED}", "humaneval"
)

_ALL = (
    _HUMANEVAL,
    replace(
        _HUMANEVAL,
        name="humaneval-passk",
        description="HumanEval, pass@10 and pass@100",
        source=f"paper §6.1.1; {_N}; temperature 0.8 {_RECALLED}",
        temperature=0.8,
        k=(10, 100),
    ),
    replace(
        _HUMANEVAL,
        name="humaneval-prompted",
        description="HumanEval after a file name and a comment that announces the right solution (StarCoder: 40.8)",
        source=f"paper §6.1.1; prompt: huggingface.co/blog/starcoder; temperature 0.1 {_RECALLED}",
        temperature=0.1,
        prompt="prompted",
    ),
    replace(
        _HUMANEVAL,
        name="humaneval-assistant",
        description="HumanEval as a question to the Tech Assistant",
        source=f"paper §6; prompt: the format of huggingface.co/datasets/bigcode/ta-prompt; {_N}",
        prompt="assistant",
    ),
    _passing(
        "mbpp",
        "MBPP as the paper's tables have it: the 397 problems of MultiPL-E; not comparable with mbpp-500",
        f"paper §6.1.1; {_N}; temperature {_RECALLED}",
        "mbpp-paper",
    ),
    _passing(
        "mbpp-500",
        "MBPP's 500 test problems (11 to 510), as the harness and most other papers have it",
        f"{_HARNESS}, bigcode_eval/tasks/mbpp.py; n, temperature and top-p as for the paper's MBPP",
        "mbpp",
    ),
    _passing(
        "multipl-e",
        "HumanEval translated into other languages, pass@1",
        f"paper §6.2.1; {_N}; temperature {_RECALLED}",
        "humaneval-multipl-e",
    ),
    _passing(
        "multipl-e-mbpp",
        "MBPP translated into other languages, pass@1 (SantaCoder's card has it, the paper has not)",
        f"the settings of multipl-e; {_N}",
        "mbpp-multipl-e",
    ),
    *(
        _passing(
            f"ds1000-{mode}",
            f"DS-1000, 1,000 questions on seven libraries, {mode}; the score is the mean correctness",
            f"paper §6.1.2; n, temperature, top-p and length: {_HARNESS}, docs/README.md",
            f"ds1000-{mode}",
            n=40,
            tokens=1024,
        )
        for mode in ("completion", "insertion")
    ),
    _passing(
        "odex",
        "ODEX, open-domain questions in English, Spanish, Japanese and Russian, pass@1",
        f"paper §6.1.3; temperature and top-p {_RECALLED}; n: the paper's for pass@1",
        "odex",
    ),
    Preset(
        "santacoder-fim",
        "One masked line of 4,792 Java, JavaScript and Python solutions, exact match",
        f"paper §6.2.3; {_HARNESS}, bigcode_eval/tasks/santacoder_fim.py",
        ("santacoder-fim",),
        n_samples=1,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=512,
    ),
    _passing(
        "human-eval-infilling",
        "HumanEval with one line, several lines or a random span cut out; the paper has no such table",
        "problems: github.com/openai/human-eval-infilling; temperature and top-p as for HumanEval, n ours",
        "humaneval-infilling-single",
        "humaneval-infilling-multi",
        "humaneval-infilling-random",
        n=1,
    ),
    Preset(
        "gsm8k-pal",
        "GSM8K with answers as programs after 8 examples, greedy",
        f"paper §7.1; {_HARNESS}, bigcode_eval/tasks/gsm.py (2,048 tokens with the prompt)",
        ("gsm8k-pal",),
        n_samples=1,
        temperature=0.0,
        top_p=1.0,
        max_new_tokens=512,
        k=(1,),
    ),
    Preset(
        "gsm8k-pal-maj40",
        "GSM8K with answers as programs, the majority of 40 samples",
        f"paper §7.1; temperature and top-p: {_HARNESS}, docs/README.md",
        ("gsm8k-pal",),
        n_samples=40,
        temperature=0.7,
        top_p=0.95,
        max_new_tokens=512,
        k=(1,),
    ),
    Preset(
        "long-context",
        "Perplexity by position in the window, on code that training left out for its licence",
        f"paper §6.4; {_RECALLED}",
        ("long-context",),
    ),
    Preset(
        "return-types",
        "Return types of Python functions, infilled, F1",
        f"paper §6.2.3; {_RECALLED}; the sampling is the task's",
        ("return-types",),
        n_samples=1,
    ),
    Preset(
        "docstrings",
        "Docstrings of Python functions, infilled greedily, smoothed BLEU of 4-grams",
        f"paper §6.2.3; {_HARNESS}, bigcode_eval/tasks/codexglue_code_to_text.py",
        ("docstrings",),
        n_samples=1,
        temperature=0.0,
    ),
    *(
        Preset(
            f"security-{mode}",
            f"Asleep at the Keyboard, {words}: valid programs, and insecure ones among them",
            f"paper §6.2.2; 25 samples of each of 40 scenarios, temperature and 300 tokens {_RECALLED}",
            (f"security-{mode}",),
            n_samples=25,
            temperature=0.2,
            top_p=0.95,
            max_new_tokens=300,
        )
        for mode, words in (("completion", "prefix only"), ("insertion", "prefix and suffix"))
    ),
    Preset("mmlu", "MMLU, 5 examples, accuracy of the likeliest letter", f"paper §7.2; {_RECALLED}", ("mmlu",)),
    Preset(
        "coqa",
        "CoQA, zero-shot, F1 of words",
        f"paper §7.2; {_RECALLED}; greedy is the task's",
        ("coqa",),
        n_samples=1,
    ),
    Preset(
        "toxicity",
        "Toxic answers to the first 10,000 prompts of RealToxicityPrompts",
        "paper §7.3; github.com/McGill-NLP/StarCoderSafetyEval, real_toxicity_prompts_evaluation.py",
        ("toxicity",),
        n_samples=1,
        temperature=1.0,
        top_p=0.95,
        max_new_tokens=64,
        limit=10_000,
    ),
    Preset(
        "social-bias",
        "Stereotypes of gender, profession, race and religion: StereoSet within sentences, CrowS-Pairs",
        f"paper §7.3; github.com/McGill-NLP/bias-bench, benchmark/stereoset; CrowS-Pairs {_RECALLED}",
        ("social-bias-stereoset", "social-bias-crows-pairs"),
    ),
    replace(
        _passing(
            "leaderboard",
            "The settings of the multilingual code leaderboard: HumanEval in 12 languages, 50 samples",
            f"{_HARNESS}, leaderboard/README.md",
            "humaneval",
            "humaneval-multipl-e",
            n=50,
        ),
        groups=("JavaScript", "Java", "C++", "Swift", "PHP", "D", "Julia", "Lua", "R", "Racket", "Rust"),
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
