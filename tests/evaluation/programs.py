"""The same small program in every language, with the ways in which it can go wrong; not from any benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A function without arguments that the tests want 1 of, in MultiPL-E's form of the language.

    Args:
        head: what stands before the function's body.
        tail: what stands behind it, tests included.
        right: a body that passes.
        wrong: one that does not.
        leave: one that ends the program with code 0.
        loop: one that never ends.
        hoard: one that allocates without end.
        broken: one that is no program of the language.
    """

    head: str
    tail: str
    right: str
    wrong: str
    leave: str
    loop: str
    hoard: str
    broken: str


_PERL_TAIL = """
}
use Test::Deep;

sub testhumaneval {
    if (eq_deeply(f(), 1)) { print "ok!" } else { exit 1; }
}

testhumaneval();"""
_BASH_TAIL = """
}

candidate() {
    f "$@"
}

set -e
run_test() {
    [[ $(candidate) = "1" ]]
}

run_test"""
_NODE_TAIL = """
}
const assert = require('node:assert');

function test() {
  assert.deepEqual(f(), 1);
}

test();"""
_GO_TAIL = """
}
func TestF(t *testing.T) {
    if fmt.Sprintf("%v", f()) != "1" {
        t.Errorf("wrong")
    }
}
"""
_RUBY_TAIL = """
end
require 'test/unit'
class TestHumanEval < Test::Unit::TestCase
  def test_f
    assert_equal(1, f)
  end
end
"""
_LUA_TAIL = """
end
lu = require('luaunit')

function test_humaneval()
    lu.assertEquals(f(), 1)
end

os.exit(lu.LuaUnit.run())"""

EXAMPLES = {
    "cpp": Example(
        "#include <cassert>\n#include <cstdio>\n#include <cstdlib>\n#include <new>\nlong f() {",
        "\n}\nint main() {\n    assert(f() == 1);\n}\n",
        right="return 1;",
        wrong="return 2;",
        leave="std::exit(0);",
        loop="for (volatile long i = 0;; i++);",
        hoard="for (;;) for (char *p = new char[1 << 26], *q = p; q < p + (1 << 26); q += 4096) *q = 1;",
        broken="return 1",
    ),
    "cs": Example(
        "using System;\nusing System.Diagnostics;\nusing System.Collections.Generic;\nclass Problem {\n"
        "    public static long F() {",
        "\n    }\n    public static void Main(string[] args) {\n    Debug.Assert(F() == 1);\n    }\n\n}\n",
        right="return 1;",
        wrong="return 2;",
        leave="Environment.Exit(0); return 1;",
        loop="for (;;);",
        hoard="var all = new List<long[]>(); for (;;) all.Add(new long[1000000]);",
        broken="return 1",
    ),
    "d": Example(
        "import core.stdc.stdlib;\nlong f() {",
        "\n}\nunittest\n{\n    assert(f() == 1);\n}\nvoid main(){}",
        right="return 1;",
        wrong="return 2;",
        leave="exit(0); return 1;",
        loop="for (;;) {}",
        hoard="long[][] all; for (;;) { all ~= new long[1_000_000]; all[$ - 1][] = 1; }",
        broken="return 1",
    ),
    "go": Example(
        'package f_test\n\nimport (\n    "fmt"\n    "os"\n    "testing"\n)\n\nvar out = os.Stdout\n\nfunc f() int {',
        _GO_TAIL,
        right="return 1",
        wrong="return 2",
        leave="os.Exit(0); return 1",
        loop="for {\n}",
        hoard="all := [][]byte{}\nfor {\nall = append(all, make([]byte, 1<<26))\nall[len(all)-1][0] = 1\n}",
        broken="return 1 +",
    ),
    "java": Example(
        "import java.util.*;\nclass Problem {\n    public static long f() {",
        "\n    }\n    public static void main(String[] args) {\n    assert(f() == 1);\n    }\n\n}\n",
        right="return 1;",
        wrong="return 2;",
        leave="System.exit(0); return 1;",
        loop="while (true);",
        hoard="List<long[]> all = new ArrayList<>(); while (true) all.add(new long[1000000]);",
        broken="return 1",
    ),
    "js": Example(
        "function f(){",
        _NODE_TAIL,
        right="return 1;",
        wrong="return 2;",
        leave="process.exit(0);",
        loop="for (;;);",
        hoard="const all = []; for (;;) all.push(new Array(1e6).fill(1.5));",
        broken="return (1;",
    ),
    "lua": Example(
        "local function f()\n",
        _LUA_TAIL,
        right="return 1",
        wrong="return 2",
        leave="return 1\nend\nos.exit(0)\nlocal function g()",  # luaunit gives an exit in a test a code of its own
        loop="while true do end",
        hoard="local all = string.rep('x', 2^20) while true do all = all .. all end",
        broken="return (1",
    ),
    "php": Example(
        "<?php\nfunction f() {",
        '\n}\nfunction test(): void {\n    if (f() !== 1) { throw new Exception("Test failed!"); }\n}\n\ntest();',
        right="return 1;",
        wrong="return 2;",
        leave="exit(0);",
        loop="for (;;);",
        hoard="$all = 'x'; for (;;) $all .= $all;",
        broken="return (1;",
    ),
    "pl": Example(
        "sub f {\n",
        _PERL_TAIL,
        right="return 1;",
        wrong="return 2;",
        leave="exit 0;",
        loop="while (1) {}",
        hoard="my $all = 'x' x 1000000; while (1) { $all .= $all; }",
        broken="return (1;",
    ),
    "r": Example(
        "f <- function() {",
        "\n}\ntest_humaneval <- function() {\n    stopifnot(isTRUE(all.equal(f(), 1)))\n}\ntest_humaneval()",
        right="1",
        wrong="2",
        leave="quit(status = 0)",
        loop="while (TRUE) {}",
        hoard="all <- list(); while (TRUE) all[[length(all) + 1]] <- rep(1, 1e7)",
        broken="1 +",
    ),
    "rb": Example(
        "def f()\n",
        _RUBY_TAIL,
        right="1",
        wrong="2",
        leave="exit 0",
        loop="loop {}",
        hoard="all = 'x' * 1000000; loop { all += all }",
        broken="(1",
    ),
    "rkt": Example(
        "#lang racket\n(define (f)\n",
        "\n)\n(require rackunit)\n(define (test-humaneval) (check-within (f) 1 0.001))\n(test-humaneval)",
        right="1",
        wrong="2",
        leave="(exit 0)",
        loop="(let again () (again))",
        hoard="(let again ([all '()]) (again (cons (make-bytes 10000000 1) all)))",
        broken=")",
    ),
    "rs": Example(
        "fn f() -> isize {",
        "\n}\n\nfn main() {\n    assert_eq!(f(), 1);\n}\n",
        right="1",
        wrong="2",
        leave="std::process::exit(0)",
        loop="loop { std::hint::black_box(0); }",
        hoard="let mut all = vec![1u8]; loop { let more = all.clone(); all.extend(more); }",
        broken="1 +",
    ),
    "scala": Example(
        "object Problem {\n    def f() : Long = {",
        "\n    }\n    def main(args: Array[String]) = {\n    assert(f() == 1);\n    }\n\n}\n",
        right="1",
        wrong="2",
        leave="sys.exit(0)",
        loop="while (true) {}; 1",
        hoard="var all = List[Array[Long]](); while (true) all = new Array[Long](1000000) :: all; 1",
        broken="1 +",
    ),
    "sh": Example(
        "#!/bin/bash\nf() {\n",
        _BASH_TAIL,
        right="echo 1",
        wrong="echo 2",
        leave="echo 1\n}\nexit 0\ng() {\n:",  # inside `f` it would leave a subshell only
        loop="while :; do :; done",
        hoard="local all=xxxxxxxx; while :; do all=$all$all; done",
        broken="if then",
    ),
    "ts": Example(
        "function f(): number {",
        _NODE_TAIL.replace("const", "declare var require: any;\ndeclare var process: any;\nconst"),
        right="return 1;",
        wrong="return 2;",
        leave="process.exit(0); return 1;",
        loop="for (;;);",
        hoard="const all: number[][] = []; for (;;) all.push(new Array(1e6).fill(1.5));",
        broken="return 'one';",
    ),
}
