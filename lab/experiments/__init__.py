"""Many runs in turns, and what follows from them: lab.compare and theory.experiment."""
