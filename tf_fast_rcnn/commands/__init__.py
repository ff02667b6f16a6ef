"""One module a command of the command line: EXAMPLES, `add_arguments(parser)` and `run(options)`.

TensorFlow takes seconds to import, so that the modules import what needs it in `run`, and `--help` answers at once.
"""
