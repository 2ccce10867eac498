"""The pty-chi engine: the iterative solvers of the library pty-chi behind the engine protocol."""
