/* The activation functions that models, operations and kernels name. */
#ifndef CT_OPS_ACTIVATION_H
#define CT_OPS_ACTIVATION_H

typedef enum ct_activation {
    CT_ACT_NONE,
    CT_ACT_RELU,
    CT_ACT_GELU,      /* x * normal CDF(x) */
    CT_ACT_GELU_TANH, /* its tanh approximation */
    CT_ACT_SILU,
    CT_ACT_COUNT
} ct_activation;

#endif
