"""The training step that `fit` runs on JAX, compiled by XLA: what it counts, and blocks of it to time."""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import jax


class CompiledStep:
    """A training step whose state and data stay on the device.

    Args:
        build: a function that makes a compiled Keras model. Its variables are given to the steps, which overwrite them.
        x: inputs of one batch.
        y: targets of the batch.
    """

    def __init__(self, build, x, y):
        # An accelerator would compile each small operation of building for itself.
        with jax.default_device(jax.devices("cpu")[0]):
            model = build()
            model._symbolic_build(data_batch=(x, y, None))  # As `fit` does: optimizer and metrics get variables.
        device = jax.devices()[0]
        self.on_processor = device.platform == "cpu"
        self.block = 1 if self.on_processor else 10  # Steps to time as one, so that an accelerator need not wait.
        self.parameters = 0
        for weight in model.trainable_weights:
            self.parameters += math.prod(weight.shape)
        weights = (model.trainable_variables, model.non_trainable_variables)
        state = []
        for variables in (*weights, model.optimizer.variables, model.metrics_variables):
            state.append([variable.value for variable in variables])
        self.state = jax.device_put(tuple(state), device)
        self.data = jax.device_put((x, y), device)
        step = jax.jit(model.train_step, donate_argnums=0)
        self.lowered = step.lower(self.state, self.data)
        self.program = None

    def compile(self):
        self.program = self.lowered.compile()

    def run(self):
        """Runs a block of steps, one after the other, and waits for the last."""
        for _ in range(self.block):
            _, self.state = self.program(self.state, self.data)
        jax.block_until_ready(self.state)

    def counts(self):
        """XLA's operations and temporary memory, in bytes, of one step.

        There are no operations on an accelerator: XLA does not count those of the libraries that it calls there.
        """
        operations = self.program.cost_analysis()["flops"] if self.on_processor else None
        return {
            "operations": operations,
            "memory": self.program.memory_analysis().temp_size_in_bytes,
            "parameters": self.parameters,
        }


def compile_all(steps):
    """Compiles steps at the same time: XLA works without Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(CompiledStep.compile, steps))
