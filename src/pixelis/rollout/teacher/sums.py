"""Sums thought aloud digit by digit, the last digit first, so that each step is one small fact."""

from __future__ import annotations


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
