"""`NVIDIA_REQUIRE_CUDA`: spaces are OR, commas are AND. The texts are those of NVIDIA's own images, shortened."""

import pytest

from gateway.doctor.requirement import Host, parse_requirement, unmet_requirements

# nvidia/cuda:12.8.1: data-centre brands may have an older branch, geforce is not listed
CUDA_12_8 = (
    "cuda>=12.8 brand=unknown,driver>=470,driver<471 brand=grid,driver>=470,driver<471"
    " brand=tesla,driver>=535,driver<536 brand=nvidia,driver>=535,driver<536 brand=tesla,driver>=550,driver<551"
)
# nvidia/cuda:12.3.2: geforce is listed
CUDA_12_3 = "cuda>=12.3 brand=tesla,driver>=525,driver<526 brand=geforce,driver>=535,driver<536"


@pytest.mark.parametrize(
    ("text", "host", "holds"),
    [
        # a new enough driver, whatever the brand
        (CUDA_12_8, Host("12.8", "570.26", "geforce"), True),
        (CUDA_12_8, Host("13.0", "580.65.06", "geforce"), True),
        # an older branch: the brand decides (tabbyAPI#324, dashdot#1226)
        (CUDA_12_8, Host("12.2", "535.86.05", "tesla"), True),
        (CUDA_12_8, Host("12.2", "535.86.05", "nvidia"), True),
        (CUDA_12_8, Host("12.2", "535.86.05", "geforce"), False),
        (CUDA_12_8, Host("12.4", "550.54.14", "geforce"), False),
        (CUDA_12_3, Host("12.2", "535.86.05", "geforce"), True),
        # between two branches that are listed
        (CUDA_12_8, Host("12.3", "545.23.08", "tesla"), False),
        (CUDA_12_8, Host("11.4", "470.256.02", "grid"), True),
        (CUDA_12_8, Host("11.4", "471", "grid"), False),
        # the other forms
        ("arch>=9.0", Host("12.8", "570", arch="9.0"), True),
        ("arch>=9.0", Host("12.8", "570", arch="8.6"), False),
        ("arch>=9.0", Host("12.8", "570"), False),
        ("brand!=geforce", Host("12.8", "570", "tesla"), True),
        ("brand!=geforce", Host("12.8", "570", "geforce"), False),
        ("cuda=12.8", Host("12.8", "570"), True),
        ("cuda!=12.8", Host("12.8", "570"), False),
        ("cuda<=12.8,cuda>12.2", Host("12.4", "570"), True),
        ("", Host("11.0", "450"), True),
    ],
)
def test_a_requirement_is_held_against_a_host(text: str, host: Host, holds: bool) -> None:
    assert (unmet_requirements({"NVIDIA_REQUIRE_CUDA": text}, host) == []) is holds


def test_every_variable_must_hold_and_the_switch_turns_all_off() -> None:
    """`NVIDIA_REQUIRE_*` are joined by AND; other variables say nothing."""
    host = Host("12.2", "535.86.05", "tesla")
    variables = {"NVIDIA_REQUIRE_CUDA": "cuda>=11.0", "NVIDIA_REQUIRE_MODEL": "driver>=570", "CUDA_VERSION": "99"}
    assert unmet_requirements(variables, host) == ["NVIDIA_REQUIRE_MODEL"]
    assert unmet_requirements({**variables, "NVIDIA_DISABLE_REQUIRE": "true"}, host) == []


def test_a_requirement_reads_as_alternatives_of_terms() -> None:
    alternatives = parse_requirement("cuda>=12.8 brand=tesla,driver>=535")
    assert [[str(term) for term in group] for group in alternatives] == [["cuda>=12.8"], ["brand=tesla", "driver>=535"]]


@pytest.mark.parametrize("text", ["cuda>=", "rm -rf", "colour=red", "brand>=tesla", "cuda~12"])
def test_a_text_of_another_form_is_refused(text: str) -> None:
    """What cannot be read is said to be so, and holds for nobody."""
    with pytest.raises(ValueError, match=r"requirement|brands"):
        parse_requirement(text)
