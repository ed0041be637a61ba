"""What the sandbox is made of.

    main process            supervisor                  fork server (shut in)        program (shut in)
    sandbox.py ──pipe──▶ supervisor.py ──socket──▶ harness.py ──fork──▶ candidate and tests
     a thread            │ watch.py: CPU, memory,      warm interpreter,             one fork, one verdict
     a worker            │ output, disk, processes     no ctypes
                         └──fork, confine.py, exec──────────────────────────▶ compilers and programs

`confine.py` (Landlock, capabilities, user) and `seccomp.py` (system calls) shut a process in before it executes
anything foreign; `judge.py` keeps the verdict a secret from the program; `strict.py` stands between tests and candidate
when they run in two processes; `processes.py`, `folders.py`, `disks.py` and `clock.py` end, clear, limit and measure
what programs do. Behind the main process all of it is standard library, single-threaded, and knows nothing of the kit.
"""
