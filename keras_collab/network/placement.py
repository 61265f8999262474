"""Whether a network lives where it is about to be trained."""

import keras


def check_same_placement(network: keras.Model) -> None:
    """Raises if the network was built outside the distribution that is in force now (or inside one that is not).

    A variable made now is compared with the network's: under `tf.distribute.MirroredStrategy` it is of another class,
    under `keras.distribution` it lies on other devices. Keras itself fails on a mismatch at the first step only.
    """
    for weight in network.weights[:1]:
        fresh = keras.Variable(0.0, trainable=weight.trainable, name="placement")
        if _placement(fresh) != _placement(weight):
            raise ValueError(
                f"Network '{network.name}' was built outside the distribution it is to be trained in: its weights are "
                f"{_placement(weight)}, new ones are {_placement(fresh)}. Build the network, and wrap it, inside "
                "`with strategy.scope():`, and call there what raised this, or after "
                "keras.distribution.set_distribution()."
            )


def _placement(variable: keras.Variable) -> tuple[str, int]:
    value = variable.value
    sharding = getattr(value, "sharding", None)  # JAX arrays alone have it.
    return type(value).__name__, len(sharding.device_set) if sharding else 1
