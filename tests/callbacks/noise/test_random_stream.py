"""The random numbers of a callback depend on the seed and the place in the training, and on nothing beside."""

import pickle
from types import SimpleNamespace

import torch

from lightning_trainingkit.callbacks.noise.random_stream import RandomStream


def place(rank=0, epoch=0, batch=0):
    strategy = SimpleNamespace(broadcast=lambda seed: seed)
    fit_loop = SimpleNamespace(batch_idx=batch)
    return SimpleNamespace(global_rank=rank, current_epoch=epoch, fit_loop=fit_loop, strategy=strategy)


def draw(stream, **where):
    return tuple(torch.rand(3, generator=stream.generator(place(**where))).tolist())


def test_each_place_name_and_seed_has_its_own_numbers():
    places = [{}, {"rank": 1}, {"epoch": 1}, {"batch": 1}, {"rank": 2, "batch": 3}]
    draws = [draw(RandomStream(name, seed), **where) for name in "ab" for seed in (0, 1, 2**70) for where in places]
    assert len(set(draws)) == len(draws)
    again = RandomStream("a", 0)
    assert [draw(again, **where) for where in reversed(places)] == draws[4::-1]
    assert draw(pickle.loads(pickle.dumps(again)), epoch=1) == draws[2]


def test_without_a_seed_it_takes_torchs():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    stream = RandomStream("a", None)
    assert draw(stream) == draw(RandomStream("a", 5))
    assert stream.seed == 5
    torch.manual_seed(6)
    assert draw(stream) == draw(RandomStream("a", 5))
    stream.restart()
    assert draw(stream) == draw(RandomStream("a", 6))
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())
