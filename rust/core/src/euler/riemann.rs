//! The HLLC approximate Riemann solver.

use super::state::{Block, CHANNELS, TILE, greater, lesser};

/// HLLC flux of (ρ, ρu, ρv, E) between two primitive states (ρ, u, v, p), `u` normal to the face.
///
/// Outer wave speeds are Einfeldt's (Roe-averaged velocity and his bound on the sound speed), with which the scheme
/// keeps density and pressure positive; the middle wave is the contact. Both sides' formulas coincide up to a choice of
/// side, so there is no branch: the side that the contact moves away from is selected first, and an outer wave that has
/// passed the face contributes with weight zero.
///
/// # References
/// Toro, Spruce & Speares, Shock Waves 4 (1994); Batten et al., SIAM J. Sci. Comput. 18 (1997).
#[inline(always)]
pub fn hllc(left: [f64; CHANNELS], right: [f64; CHANNELS], gamma: f64) -> [f64; CHANNELS] {
    let ([rho_l, u_l, v_l, p_l], [rho_r, u_r, v_r, p_r]) = (left, right);
    let (root_l, root_r) = (rho_l.sqrt(), rho_r.sqrt());
    let weight = 1.0 / (root_l + root_r);
    let (share_l, share_r) = (root_l * weight, root_r * weight);
    let (sound2_l, sound2_r) = (gamma * p_l / rho_l, gamma * p_r / rho_r);
    let jump = u_r - u_l;
    let mean = share_l * u_l + share_r * u_r;
    let spread = (share_l * sound2_l + share_r * sound2_r + 0.5 * share_l * share_r * jump * jump).sqrt();
    let slow = lesser(u_l - sound2_l.sqrt(), mean - spread);
    let fast = greater(u_r + sound2_r.sqrt(), mean + spread);
    // Mass fluxes relative to the outer waves: the left one is negative, the right one positive.
    let (mass_l, mass_r) = (rho_l * (slow - u_l), rho_r * (fast - u_r));
    let contact = (p_r - p_l + mass_l * u_l - mass_r * u_r) / (mass_l - mass_r);

    let from_left = contact >= 0.0;
    let pick = |l: f64, r: f64| if from_left { l } else { r };
    let (rho, u, v, p) = (pick(rho_l, rho_r), pick(u_l, u_r), pick(v_l, v_r), pick(p_l, p_r));
    let (wave, mass) = (pick(slow, fast), pick(mass_l, mass_r));
    let reached = pick(lesser(slow, 0.0), greater(fast, 0.0));

    let energy = p / (gamma - 1.0) + 0.5 * rho * (u * u + v * v);
    let star_pressure = p + mass * (contact - u);
    let stretch = 1.0 / (wave - contact);
    // U* − U in each channel, from the jump conditions across the outer wave.
    let d_rho = rho * (contact - u) * stretch;
    let star_rho = rho + d_rho;
    let d_normal = star_rho * contact - rho * u;
    let d_tangential = d_rho * v;
    let d_energy = (energy * (contact - u) + star_pressure * contact - p * u) * stretch;
    [
        rho * u + reached * d_rho,
        rho * u * u + p + reached * d_normal,
        rho * u * v + reached * d_tangential,
        u * (energy + p) + reached * d_energy,
    ]
}

/// HLLC fluxes of `n` faces along the axis of channel `NORMAL` (1: x, 2: y): face `j` lies between `left[j]` and
/// `right[j + shift]`.
#[inline(always)]
pub fn fluxes<const NORMAL: usize>(
    left: &Block,
    right: &Block,
    (shift, n): (usize, usize),
    gamma: f64,
    flux: &mut Block,
) {
    assert!(n <= TILE + 1 && shift <= 1);
    let tangential = CHANNELS - 1 - NORMAL;
    for j in 0..n {
        let state = |b: &Block, j: usize| [b.0[0][j], b.0[NORMAL][j], b.0[tangential][j], b.0[3][j]];
        let [mass, normal, along, energy] = hllc(state(left, j), state(right, j + shift), gamma);
        flux.0[0][j] = mass;
        flux.0[NORMAL][j] = normal;
        flux.0[tangential][j] = along;
        flux.0[3][j] = energy;
    }
}
