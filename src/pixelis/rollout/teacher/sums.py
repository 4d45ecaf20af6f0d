"""Sums and comparisons thought aloud digit by digit, so that each step is one small fact."""

from __future__ import annotations

from collections.abc import Sequence


def add_aloud(a: int, b: int) -> str:
    """`187+346: 7+6=13, 8+4+1=13, 1+3+1=5: 533.`"""
    parts, carry = [], 0
    x, y = str(a)[::-1], str(b)[::-1]
    for i in range(max(len(x), len(y))):
        one, two = int(x[i]) if i < len(x) else 0, int(y[i]) if i < len(y) else 0
        total = one + two + carry
        parts.append(f"{one}+{two}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"{a}+{b}: {', '.join(parts)}: {a + b}."


def subtract_aloud(a: int, b: int) -> str:
    """The smaller from the larger: `346-187: 16-7=9, 13-8=5, 2-1=1: 159.`, borrowing from the digit before."""
    high, low = max(a, b), min(a, b)
    parts, borrow = [], 0
    x, y = str(high)[::-1], str(low)[::-1]
    for i in range(len(x)):
        one, two = int(x[i]) - borrow, int(y[i]) if i < len(y) else 0
        borrow = int(one < two)
        parts.append(f"{one + 10 * borrow}-{two}={one + 10 * borrow - two}")
    return f"{high}-{low}: {', '.join(parts)}: {high - low}."


def compare_aloud(a: str, b: str) -> str:
    """`1:1=, 1:5<` for 0.00119 and 0.00157: digits of one place side by side, from the first in which either is not 0 to where they differ.

    The sign stands behind both digits, as a sum behind its parts: before the second, it would have to be found and judged in one step.

    Args:
        a, b: numbers >= 0 in plain decimals; missing places are 0.
    """
    (x, y), steps = _aligned(a, b), []
    for one, two in zip(x, y, strict=True):
        if one == two == "0" and not steps:
            continue
        steps.append(f"{one}:{two}{'=' if one == two else '<' if one < two else '>'}")
        if one != two:
            break
    return ", ".join(steps) or "0:0="


def _aligned(a: str, b: str) -> tuple[str, str]:
    """Digits of both, place under place."""
    (x, _, u), (y, _, v) = a.partition("."), b.partition(".")
    whole, part = max(len(x), len(y)), max(len(u), len(v))
    return x.zfill(whole) + u.ljust(part, "0"), y.zfill(whole) + v.ljust(part, "0")


def choose_aloud(values: Sequence[tuple[str, str]], *, wants_large: bool) -> tuple[str, str]:
    """Which of some measured things has the largest or smallest number: what is thought, and its name. Equal ones: the first.

    Each small step is a copy or one fact about two digits. What the sign means is said of the things in the order they were named, and
    what is wanted is then looked up by its word: `More wins. red ring 0.3, blue star 0.12: 3:1>: more red ring, less blue star. More: red
    ring`. A third is compared with the better of the two.

    Args:
        values: (number, name), at least two.
    """
    wanted, (best, name) = "more" if wants_large else "less", values[0]
    said = f"{wanted.capitalize()} wins."
    for number, other in values[1:]:
        steps, one, two = _judged(best, number, wanted)
        said += f" {name} {best}, {other} {number}: {steps}: {one} {name}, {two} {other}."
        if two == wanted:
            best, name = number, other
        said += f" {wanted.capitalize()}: {name}."
    return said.rstrip("."), name


def best_aloud(numbers: Sequence[int], word: str) -> str:
    """The most or least of several numbers, each against the best of those before it.

    `177 173 191. More wins. 177, 173: 1:1=, 7:7=, 7:3>: more 177, less 173. 177, 191: 1:1=, 7:9<: less 177, more 191. The most: 191`

    Args:
        numbers: at least one, all >= 0.
        word: "most" or "least".
    """
    wanted, best = "more" if word == "most" else "less", numbers[0]
    said = f"{' '.join(map(str, numbers))}. {wanted.capitalize()} wins."
    for number in numbers[1:]:
        steps, one, two = _judged(str(best), str(number), wanted)
        said += f" {best}, {number}: {steps}: {one} {best}, {two} {number}."
        best = number if two == wanted else best
    return f"{said} The {word}: {best}"


def _judged(a: str, b: str, wanted: str) -> tuple[str, str, str]:
    """How two numbers compare digit by digit, and "more", "less" or "same" for each; of equal ones the first is what is wanted."""
    steps = compare_aloud(a, b)
    one, two = {"<": ("less", "more"), ">": ("more", "less"), "=": (wanted, "same")}[steps[-1]]
    return steps, one, two
