"""One module per command: EXAMPLES, `add_arguments(parser)` and `run(options)`.

TensorFlow takes seconds to import, so the modules import whatever needs it inside `run`; this keeps `--help` fast.
"""
