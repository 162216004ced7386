/* exp and what follows from it, on whichever vector the including file's ISA has. Include after
 * that ISA's vector.h. */

/* exp(x) within 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial for exp(r) (Cephes'
 * coefficients; Moshier, 1992). Overflow gives infinity, NaN stays. */
static inline vec v_exp(vec x)
{
    x = v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x));
    vec n = v_round(v_mul(x, v_set1(1.44269504f)));
    vec r = v_fma(n, v_set1(-0.693359375f), x);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vec p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_fma(p, v_mul(r, r), v_add(r, v_set1(1.0f)));
    return v_ldexp(p, n);
}

/* x / (1 + exp(-z)) */
static inline vec v_times_sigmoid(vec x, vec z)
{
    return v_div(x, v_add(v_set1(1.0f), v_exp(v_neg(z))));
}

static inline vec v_silu(vec x)
{
    return v_times_sigmoid(x, x);
}

/* 0.5 x (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline vec v_gelu_tanh(vec x)
{
    vec cubed = v_mul(v_mul(x, x), x);
    vec twice_u = v_mul(v_set1(1.59576912f), v_fma(v_set1(0.044715f), cubed, x));
    return v_times_sigmoid(x, twice_u);
}

/* x times the normal CDF. The tail 0.5 erfc(|x| / sqrt 2) by Abramowitz and Stegun 7.1.26 (error
 * below 1e-7), so that negative x has no cancellation. */
static inline vec v_gelu(vec x)
{
    vec z = v_mul(v_abs(x), v_set1(0.70710678f));
    vec t = v_div(v_set1(1.0f), v_fma(v_set1(0.3275911f), z, v_set1(1.0f)));
    vec p = v_set1(1.061405429f);
    p = v_fma(p, t, v_set1(-1.453152027f));
    p = v_fma(p, t, v_set1(1.421413741f));
    p = v_fma(p, t, v_set1(-0.284496736f));
    p = v_fma(p, t, v_set1(0.254829592f));
    vec tail = v_mul(v_mul(v_mul(p, t), v_set1(0.5f)), v_exp(v_neg(v_mul(z, z))));
    return v_mul(x, v_if_negative(x, tail, v_sub(v_set1(1.0f), tail)));
}

static inline vec v_relu(vec x)
{
    return v_max(v_set1(0.0f), x);
}
