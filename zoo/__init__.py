"""superposition-zoo: what does a transformer's token embedding contain that superposition does not explain?"""

from typing import TYPE_CHECKING

from zoo import lazy

if TYPE_CHECKING:
    from zoo.catalog import list_models
    from zoo.checkpoints import save
    from zoo.errors import ZooError
    from zoo.hub import push
    from zoo.local_learning.estimator import local_learning_coefficient
    from zoo.source import embedding, info, load

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazy.exports(__name__, __file__)
