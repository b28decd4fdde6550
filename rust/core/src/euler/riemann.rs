//! The HLLC approximate Riemann solver.

use super::state::{Block, CHANNELS, energy_of, greater, lesser};

/// HLLC flux of (ρ, ρu, ρv, E) between two primitive states (ρ, u, v, p), `u` normal to the face.
///
/// Outer wave speeds are Einfeldt's (Roe-averaged velocity and his bound on the sound speed), with which the scheme
/// keeps density and pressure positive; the middle wave is the contact. Both sides' formulas coincide up to a choice of
/// side, so there is no branch: the side that the contact moves away from is selected first, and an outer wave that has
/// passed the face contributes with weight zero. Quotients share divisions, whose divisors are products of three densities
/// and of densities and pressures: with values from 1e-100 to 1e100 all are normal numbers.
///
/// # References
/// Toro, Spruce & Speares, Shock Waves 4 (1994); Batten et al., SIAM J. Sci. Comput. 18 (1997).
#[inline(always)]
pub fn hllc(left: [f64; CHANNELS], right: [f64; CHANNELS], gamma: f64) -> [f64; CHANNELS] {
    let ([rho_l, u_l, v_l, p_l], [rho_r, u_r, v_r, p_r]) = (left, right);
    // Roe's weights √ρ_l : √ρ_r, here as ρ_l : √(ρ_l ρ_r), with one root and, for all three quotients, one division.
    let middle = (rho_l * rho_r).sqrt();
    let total = rho_l + middle;
    let inverse = 1.0 / (rho_l * rho_r * total);
    let (volume_l, volume_r) = (rho_r * total * inverse, rho_l * total * inverse);
    let weight = rho_l * rho_r * inverse;
    let (share_l, share_r) = (rho_l * weight, middle * weight);
    let (sound2_l, sound2_r) = (gamma * p_l * volume_l, gamma * p_r * volume_r);
    let jump = u_r - u_l;
    let mean = share_l * u_l + share_r * u_r;
    let spread = (share_l * sound2_l + share_r * sound2_r + 0.5 * share_l * share_r * jump * jump).sqrt();
    let slow = lesser(u_l - sound2_l.sqrt(), mean - spread);
    let fast = greater(u_r + sound2_r.sqrt(), mean + spread);
    // Mass fluxes relative to the outer waves: the left one is negative, the right one positive.
    let (mass_l, mass_r) = (rho_l * (slow - u_l), rho_r * (fast - u_r));
    // The contact moves at force / span, span < 0.
    let (force, span) = (p_r - p_l + mass_l * u_l - mass_r * u_r, mass_l - mass_r);

    let from_left = force <= 0.0;
    let pick = |l: f64, r: f64| if from_left { l } else { r };
    let (rho, u, v, p) = (pick(rho_l, rho_r), pick(u_l, u_r), pick(v_l, v_r), pick(p_l, p_r));
    let (wave, mass) = (pick(slow, fast), pick(mass_l, mass_r));
    let reached = pick(lesser(slow, 0.0), greater(fast, 0.0));

    // 1 / (wave − contact) = span / gap: again one division for both quotients.
    let gap = wave * span - force;
    let inverse = 1.0 / (span * gap);
    let (contact, stretch) = (force * gap * inverse, span * span * inverse);
    let energy = energy_of([rho, u, v, p], gamma);
    let star_pressure = p + mass * (contact - u);
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
    let tangential = CHANNELS - 1 - NORMAL;
    let (left, right, flux) = (left.columns(0, n), right.columns(shift, n), flux.first_mut(n));
    for j in 0..n {
        let state = |b: [&[f64]; CHANNELS]| [b[0][j], b[NORMAL][j], b[tangential][j], b[3][j]];
        let [mass, normal, along, energy] = hllc(state(left), state(right), gamma);
        flux[0][j] = mass;
        flux[NORMAL][j] = normal;
        flux[tangential][j] = along;
        flux[3][j] = energy;
    }
}
