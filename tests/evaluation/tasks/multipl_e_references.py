"""Answers to problems of MultiPL-E's HumanEval, written for these tests, and a slip that makes each of them wrong.

By language: the five problems in the languages that the suite always tries (both pass@1 tables of the paper have them),
two of them in the others. A completion ends where the stop strings of its language cut it.
"""

from dataclasses import dataclass

BELOW_ZERO, INTERSPERSE, SUM_PRODUCT, GCD, PALINDROME = (3, 5, 8, 13, 48)


@dataclass(frozen=True)
class Reference:
    """`right` follows the stripped prompt of HumanEval's problem `number`; `slip` is a pair (text, wrong text)."""

    number: int
    right: str
    slip: tuple[str, str]

    @property
    def wrong(self) -> str:
        assert self.right.count(self.slip[0]) == 1
        return self.right.replace(*self.slip)


_CPP = (
    Reference(
        BELOW_ZERO,
        """
    long balance = 0;
    for (long change : operations)
        if ((balance += change) < 0) return true;
    return false;""",
        ("< 0", "<= 0"),
    ),
    Reference(
        INTERSPERSE,
        """
    std::vector<long> mixed;
    for (long number : numbers) {
        if (!mixed.empty()) mixed.push_back(delimeter);
        mixed.push_back(number);
    }
    return mixed;""",
        ("!mixed.empty()", "true"),
    ),
    Reference(
        SUM_PRODUCT,
        """
    long sum = 0, product = 1;
    for (long number : numbers) { sum += number; product *= number; }
    return {sum, product};""",
        ("product = 1", "product = 0"),
    ),
    Reference(GCD, "\n    return b == 0 ? a : greatest_common_divisor(b, a % b);", ("? a", "? 1")),
    Reference(PALINDROME, "\n    return std::equal(text.begin(), text.end(), text.rbegin());", ("rbegin()", "begin()")),
)

_JAVA = (
    Reference(
        BELOW_ZERO,
        """
        long balance = 0;
        for (long change : operations) {
            balance += change;
            if (balance < 0) return true;
        }
        return false;""",
        ("< 0", "<= 0"),
    ),
    Reference(
        INTERSPERSE,
        """
        ArrayList<Long> mixed = new ArrayList<>();
        for (Long number : numbers) {
            if (!mixed.isEmpty()) mixed.add(delimeter);
            mixed.add(number);
        }
        return mixed;""",
        ("!mixed.isEmpty()", "true"),
    ),
    Reference(
        SUM_PRODUCT,
        """
        long sum = 0, product = 1;
        for (long number : numbers) {
            sum += number;
            product *= number;
        }
        return Pair.with(sum, product);""",
        ("product = 1", "product = 0"),
    ),
    Reference(GCD, "\n        return b == 0 ? a : greatestCommonDivisor(b, a % b);", ("? a", "? 1")),
    Reference(
        PALINDROME,
        "\n        return new StringBuilder(text).reverse().toString().equals(text);",
        (".reverse()", ""),
    ),
)

_JS = (
    Reference(
        BELOW_ZERO,
        """
  let balance = 0;
  return operations.some(change => (balance += change) < 0);
}""",
        ("< 0", "<= 0"),
    ),
    Reference(
        INTERSPERSE,
        """
  return numbers.flatMap((number, place) => place > 0 ? [delimeter, number] : [number]);
}""",
        ("place > 0", "place >= 0"),
    ),
    Reference(
        SUM_PRODUCT,
        """
  return numbers.reduce(([sum, product], number) => [sum + number, product * number], [0, 1]);
}""",
        ("[0, 1]", "[0, 0]"),
    ),
    Reference(
        GCD,
        """
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}""",
        ("return a", "return b"),
    ),
    Reference(PALINDROME, "\n  return text === [...text].reverse().join('');\n}", (".reverse()", "")),
)

_RUST = (
    Reference(
        BELOW_ZERO,
        """
    let mut balance = 0;
    for change in operations {
        balance += change;
        if balance < 0 { return true; }
    }
    false""",
        ("< 0", "<= 0"),
    ),
    Reference(
        INTERSPERSE,
        """
    let mut mixed = Vec::new();
    for number in numbers {
        if !mixed.is_empty() { mixed.push(delimeter); }
        mixed.push(number);
    }
    mixed""",
        ("!mixed.is_empty()", "true"),
    ),
    Reference(
        SUM_PRODUCT,
        "\n    (numbers.iter().sum(), numbers.iter().product())",
        (".product()", ".sum()"),
    ),
    Reference(GCD, "\n    if b == 0 { a } else { greatest_common_divisor(b, a % b) }", ("{ a }", "{ 1 }")),
    Reference(PALINDROME, "\n    text.chars().eq(text.chars().rev())", (".rev()", "")),
)

_PERL = (
    Reference(
        BELOW_ZERO,
        """
    my $balance = 0;
    for my $change (@$operations) {
        $balance += $change;
        return 1 if $balance < 0;
    }
    return "";
}""",
        ("< 0", "<= 0"),
    ),
    Reference(
        INTERSPERSE,
        """
    my @mixed = map { ($delimeter, $_) } @$numbers;
    shift @mixed;
    return \\@mixed;
}""",
        ("shift", "pop"),
    ),
    Reference(
        SUM_PRODUCT,
        """
    my ($sum, $product) = (0, 1);
    for my $number (@$numbers) {
        $sum += $number;
        $product *= $number;
    }
    return [$sum, $product];
}""",
        ("(0, 1)", "(0, 0)"),
    ),
    Reference(GCD, "\n    ($a, $b) = ($b, $a % $b) while $b;\n    return $a;\n}", ("return $a", "return $b")),
    Reference(PALINDROME, '\n    return $text eq reverse($text) ? 1 : "";\n}', ("reverse($text)", "$text")),
)

_BASH = (
    Reference(
        BELOW_ZERO,
        """
    local balance=0 change
    for change in $1; do
        balance=$((balance + change))
        if ((balance < 0)); then echo true; return; fi
    done
    echo false""",
        ("< 0", "<= 0"),
    ),
    Reference(
        INTERSPERSE,
        """
    local mixed="" number
    for number in $1; do mixed="$mixed${mixed:+ $2 }$number"; done
    echo "$mixed\"""",
        (":+ $2 ", ":- $2 "),
    ),
    Reference(
        SUM_PRODUCT,
        """
    local sum=0 product=1 number
    for number in $1; do
        sum=$((sum + number))
        product=$((product * number))
    done
    echo "$sum $product\"""",
        ("product=1", "product=0"),
    ),
    Reference(
        GCD,
        """
    local a=$1 b=$2 rest
    while ((b)); do
        rest=$((a % b)); a=$b; b=$rest
    done
    echo "$a\"""",
        ('echo "$a"', 'echo "$b"'),
    ),
    Reference(
        PALINDROME,
        """
    local length=${#1} place
    for ((place = 0; place < length / 2; place++)); do
        if [[ ${1:place:1} != "${1:length - 1 - place:1}" ]]; then echo false; return; fi
    done
    echo true""",
        ("echo false; return", "echo true; return"),
    ),
)

_CSHARP = (
    Reference(GCD, "\n        return b == 0 ? a : GreatestCommonDivisor(b, a % b);", ("? a", "? 1")),
    Reference(PALINDROME, "\n        return text.SequenceEqual(text.Reverse());", ("text.Reverse()", "text")),
)

_D = (
    Reference(GCD, "{\n    return b == 0 ? a : greatest_common_divisor(b, a % b);\n}", ("? a", "? 1")),
    Reference(
        PALINDROME,
        """{
    foreach (place, letter; text)
        if (letter != text[$ - 1 - place]) return false;
    return true;
}""",
        ("return false", "return true"),
    ),
)

_GO = (
    Reference(
        GCD,
        """
    for b != 0 {
        a, b = b, a%b
    }
    return a
}""",
        ("return a", "return b"),
    ),
    Reference(
        PALINDROME,
        """
    for place := range text {
        if text[place] != text[len(text)-1-place] {
            return false
        }
    }
    return true
}""",
        ("return false", "return true"),
    ),
)

_LUA = (
    Reference(
        GCD,
        """
    while b ~= 0 do a, b = b, a % b end
    return a
end""",
        ("return a", "return b"),
    ),
    Reference(PALINDROME, "\n    return text == text:reverse()\nend", (":reverse()", "")),
)

_PHP = (
    Reference(GCD, "\n    return $b === 0 ? $a : greatest_common_divisor($b, $a % $b);\n}", ("? $a", "? 1")),
    Reference(PALINDROME, "\n    return $text === strrev($text);\n}", ("strrev($text)", "$text")),
)

_R = (
    Reference(GCD, "\n    if (b == 0) a else greatest_common_divisor(b, a %% b)\n}", (") a else", ") 1 else")),
    Reference(
        PALINDROME,
        """
    letters <- utf8ToInt(text)
    identical(letters, rev(letters))
}""",
        ("rev(letters)", "letters"),
    ),
)

_RACKET = (
    Reference(GCD, "\n  (if (zero? b) a (greatest_common_divisor b (remainder a b))))", ("b) a", "b) 1")),
    Reference(
        PALINDROME,
        "\n  (let ([letters (string->list text)]) (equal? letters (reverse letters))))",
        ("(reverse letters)", "letters"),
    ),
)

_RUBY = (
    Reference(GCD, "\n  b.zero? ? a : greatest_common_divisor(b, a % b)\nend", ("? a", "? 1")),
    Reference(PALINDROME, "\n  text == text.reverse\nend", (".reverse", "")),
)

_SCALA = (
    Reference(GCD, "\n        if (b == 0) a else greatestCommonDivisor(b, a % b)", (") a else", ") 1 else")),
    Reference(PALINDROME, "\n        text == text.reverse", (".reverse", "")),
)

_TYPESCRIPT = (
    Reference(GCD, "\n  return b === 0 ? a : greatest_common_divisor(b, a % b);\n}", ("? a", "? 1")),
    Reference(PALINDROME, "\n  return text === [...text].reverse().join('');\n}", (".reverse()", "")),
)

_PYTHON = (
    Reference(GCD, "\n    return a if b == 0 else greatest_common_divisor(b, a % b)", ("return a", "return 1")),
    Reference(PALINDROME, "\n    return text == text[::-1]", ("[::-1]", "")),
)

REFERENCES: dict[str, tuple[Reference, ...]] = {
    "cpp": _CPP,
    "cs": _CSHARP,
    "d": _D,
    "go": _GO,
    "java": _JAVA,
    "js": _JS,
    "lua": _LUA,
    "php": _PHP,
    "pl": _PERL,
    "py": _PYTHON,
    "r": _R,
    "rb": _RUBY,
    "rkt": _RACKET,
    "rs": _RUST,
    "scala": _SCALA,
    "sh": _BASH,
    "ts": _TYPESCRIPT,
}
