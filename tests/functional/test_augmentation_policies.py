import pytest

from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_policies import (
    DEVICE_POLICIES,
    WORKER_POLICIES,
    find_policy,
    plain_policy,
    read_policy,
)


@pytest.mark.parametrize("name", DEVICE_POLICIES)
def test_a_device_policy_is_found_by_name_and_as_it_is(name):
    assert find_policy(name) is DEVICE_POLICIES[name]
    assert find_policy(DEVICE_POLICIES[name]) is DEVICE_POLICIES[name]


@pytest.mark.parametrize("name", WORKER_POLICIES)
def test_a_policy_of_the_workers_is_refused_on_the_device_with_the_reason(name):
    assert read_policy("augment", name) == name
    with pytest.raises(ValueError, match=f"got '{name}', which runs in the workers alone: .*augment='{name}'"):
        find_policy(name)


@pytest.mark.parametrize(
    "policy",
    [Augmentation(), Augmentation(rotation=15, lens_k1=0.1), *DEVICE_POLICIES.values()],
)
def test_ranges_from_a_checkpoint_or_yaml_give_the_policy(policy):
    plain = plain_policy("augment", policy)
    assert find_policy(plain) == policy
    assert plain_policy("augment", plain) == plain


def test_a_name_stays_a_name_in_a_checkpoint():
    assert plain_policy("augment", "cifar") == "cifar"
    assert plain_policy("augment", "randaugment") == "randaugment"


def test_a_name_that_does_not_exist_lists_the_nearest():
    with pytest.raises(
        ValueError, match=r"`augment` must be the name of a policy, got 'cifar10'. The nearest are: cif"
    ):
        read_policy("augment", "cifar10")
    with pytest.raises(ValueError, match=r"`policy` must hold ranges of Augmentation, got 'flip'.*horizontal_flip"):
        find_policy({"flip": 0.5})


@pytest.mark.parametrize("policy", [None, 3, True, ["cifar"]])
def test_a_policy_of_a_wrong_type(policy):
    with pytest.raises(TypeError, match="`policy` must be a policy, got"):
        find_policy(policy)


def test_a_range_of_a_wrong_type_or_outside_its_bounds():
    with pytest.raises(ValueError, match="`horizontal_flip` must be at least 0 and at most 1, got 2"):
        find_policy({"horizontal_flip": 2})
    with pytest.raises(TypeError, match="`padding` must be an integer, got '4'"):
        find_policy({"padding": "4"})
