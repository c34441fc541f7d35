"""Paths from noise to data, x_t = alpha(t) x + sigma(t) eps, and conversions between velocity, noise, score and data.

Time runs from noise, t = 0, to data, t = 1, as in SiT's released code. The paper (arXiv 2401.08740) and some other
libraries use the opposite direction. This table translates the notation.

| here | SiT's paper | SiT's code | flow_matching | diffusers' flow matching |
| --- | --- | --- | --- | --- |
| time t | 1 - t | t | t | sigma = 1 - t |
| data x | x_* | x1 | x_1 | x_0 |
| noise eps | epsilon | x0 | x_0 | noise |
| velocity v | -v | v | v | -v |
| score | s | score | - | - |
| lambda(t) = alpha_dot sigma / alpha - sigma_dot | lambda at 1 - t | drift's variance / sigma | - | - |
| w(t) of the SDE | w at 1 - t | 2 diffusion | - | - |

A custom path is a subclass of `Interpolant` that defines `alpha` and `sigma`. `check` tests that it is a valid one.

Two-sided paths x_t = alpha(t) x + beta(t) x_src + gamma(t) z go from any source distribution to the data
(arXiv 2303.08797): `Bridge`, `SineBridge`, `QuadraticBridge`, and subclasses of `TwoSided`. This table translates their
notation.

| here | Albergo, Boffi and Vanden-Eijnden |
| --- | --- |
| source x_src, coefficient beta | x_0, alpha |
| data x, coefficient alpha | x_1, beta |
| noise z, coefficient gamma | z, gamma |
| velocity b, drift v, noise eta | b, v, eta_z |
| w(t) of the SDE | 2 epsilon(t) |
"""

from .bridge import Bridge as Bridge
from .check import check as check
from .ddpm import DDPM as DDPM
from .gvp import GVP as GVP
from .interpolant import Interpolant as Interpolant
from .interpolant import Posterior as Posterior
from .linear import Linear as Linear
from .quadratic_bridge import QuadraticBridge as QuadraticBridge
from .sine_bridge import SineBridge as SineBridge
from .two_sided import TwoSided as TwoSided
from .vp import VP as VP
