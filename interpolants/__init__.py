"""Paths from noise to data: x_t = alpha(t) x + sigma(t) eps, and what follows from them.

Time runs from noise, t = 0, to data, t = 1, as in SiT's released code. The paper (arXiv 2401.08740) runs the other
way, and other libraries do either; this table translates.

| here | SiT's paper | SiT's code | flow_matching | diffusers' flow matching |
| --- | --- | --- | --- | --- |
| time t | 1 - t | t | t | sigma = 1 - t |
| data x | x_* | x1 | x_1 | x_0 |
| noise eps | epsilon | x0 | x_0 | noise |
| velocity v | -v | v | v | -v |
| score | s | score | - | - |
| lambda(t) = alpha_dot sigma / alpha - sigma_dot | lambda at 1 - t | drift's variance / sigma | - | - |
| w(t) of the SDE | w at 1 - t | 2 diffusion | - | - |

A path of one's own is a subclass of `Interpolant` with two methods, which `check` proves.
"""

from .ddpm import DDPM as DDPM
from .gvp import GVP as GVP
from .interpolant import Interpolant as Interpolant
from .interpolant import Posterior as Posterior
from .laws import check as check
from .linear import Linear as Linear
from .vp import VP as VP
