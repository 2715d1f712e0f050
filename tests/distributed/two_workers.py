"""One of two workers of a ``MultiWorkerMirroredStrategy``, as ``TF_CONFIG`` says which."""

from parts import BATCH, data, net


def main() -> None:
    """Trains without anything of ours: what fails here is Keras' own."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = net("sgd", normalized=False)
    model.fit(*data(), batch_size=BATCH, verbose=0)


if __name__ == "__main__":
    main()
