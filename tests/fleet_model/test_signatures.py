import pytest

from fleet_model.signatures import (
    FEATURES,
    OUTPUTS,
    gradient_names,
    only,
    signature_names,
    tensor_names,
    weight_names,
)

pytestmark = pytest.mark.base


def test_a_single_tensor_is_called_by_its_role_as_in_version_0_1_0():
    assert signature_names(OUTPUTS, ["logits"], only(["logits"])) == {"logits": "outputs"}
    assert signature_names(FEATURES, ["features"], FEATURES) == {"features": "features"}


def test_several_tensors_keep_their_names_and_so_does_one_that_the_role_does_not_stand_for():
    names = signature_names(OUTPUTS, ["boxes", "scores"], only(["boxes", "scores"]))
    assert names == {"boxes": "outputs_boxes", "scores": "outputs_scores"}
    assert signature_names(FEATURES, ["image"], FEATURES) == {"image": "features_image"}


@pytest.mark.parametrize("names", [["logits"], ["boxes", "scores"], ["outputs", "x"]])
def test_names_are_found_again_in_a_signature(names):
    written = signature_names(OUTPUTS, names, only(names))
    found = [*written.values(), "loss", "w000"]
    assert tensor_names(OUTPUTS, found, only(names)) == written


def test_trained_tensors_are_numbered_such_that_string_order_is_their_order():
    paths = [f"layer{number}/kernel" for number in range(120)]
    assert weight_names(paths)["layer11/kernel"] == "w011"
    assert list(gradient_names(paths).values()) == sorted(gradient_names(paths).values())
