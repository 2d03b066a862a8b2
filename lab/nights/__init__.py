"""A night: lab validated unattended, and what follows from it. lab.tasks.nightly has the tasks."""
