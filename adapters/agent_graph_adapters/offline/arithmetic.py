"""Arithmetic without `eval`: + - * / // % **, signs and parentheses over plain numbers, bounded in time and memory.

Python's own parser reads the expression; only numbers and the operators named above are then evaluated. What bounds the
work: an expression has at most 300 characters, and no result, of a step in between either, may have more than 4,096
bits.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping

__all__ = ["ArithmeticProblem", "evaluate"]

MAX_CHARS = 300
MAX_BITS = 4096
"""Of an integer result, some 1,200 digits; so that 9**9**9 is refused instead of computed."""

_Number = int | float
_PLAIN = re.compile(r"[0-9.+\-*/%() eE_]+")
_BINARY: Mapping[type[ast.operator], Callable[[_Number, _Number], _Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class ArithmeticProblem(ValueError):
    """The expression cannot be worked out; the message says why."""


def evaluate(expression: str) -> int | float:
    """Return the value of `expression`; floats are rounded to 12 significant digits, so that 0.1 + 0.2 is 0.3.

    Raises:
        ArithmeticProblem: it is no arithmetic, divides by zero, or is too long or too large.
    """
    text = " ".join(expression.split())
    if len(text) > MAX_CHARS:
        raise ArithmeticProblem(f"the expression has {len(text)} characters; {MAX_CHARS} are the limit")
    if not _PLAIN.fullmatch(text):
        raise ArithmeticProblem(f"{text!r} is no arithmetic: numbers, + - * / // % ** and parentheses are understood")
    try:
        value = _value(ast.parse(text, mode="eval").body)
    except ArithmeticProblem as problem:
        raise ArithmeticProblem(f"{problem} in {text!r}") from None
    except ZeroDivisionError:
        raise ArithmeticProblem(f"division by zero in {text!r}") from None
    except OverflowError:
        raise ArithmeticProblem(f"the result of {text!r} is too large") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ArithmeticProblem(f"{text!r} is no complete expression") from None
    return _tidy(value, text)


def _value(node: ast.expr) -> _Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _bounded(_power(_value(left), _value(right)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left), _value(right)))
        case _:
            raise ArithmeticProblem("something that is no arithmetic")


def _power(base: _Number, exponent: _Number) -> _Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS and abs(base) > 1:
        raise ArithmeticProblem("a power that is too large")
    if base < 0 and not float(exponent).is_integer():
        raise ArithmeticProblem("a root of a negative number")
    result: _Number = base**exponent
    return result


def _bounded(number: _Number) -> _Number:
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        raise ArithmeticProblem("a number that is too large")
    return number


def _tidy(value: _Number, text: str) -> _Number:
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        raise ArithmeticProblem(f"the result of {text!r} is too large")
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
