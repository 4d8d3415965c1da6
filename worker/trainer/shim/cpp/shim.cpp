// What libtorch offers only to C++: its fused optimizer kernels and its switches for repeatable arithmetic.
// Every function catches what it calls; an exception's text goes out through `error`, to be freed by free(3).

#include "guarded.h"

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>
#include <optional>
#include <torch/headeronly/version.h>
#include <vector>

namespace {

using Handles = at::Tensor* const*;

std::vector<at::Tensor> list(Handles tensors, size_t count) {
    std::vector<at::Tensor> out;
    out.reserve(count);
    for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
    return out;
}

// The fused kernels walk memory, not indices: a gradient must lie in memory as its parameter does.
std::vector<at::Tensor> laid_out_like(const std::vector<at::Tensor>& params, Handles grads) {
    std::vector<at::Tensor> out;
    out.reserve(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
        const at::Tensor& grad = *grads[i];
        if (grad.strides() == params[i].strides()) {
            out.push_back(grad);
        } else {
            out.push_back(at::empty_like(params[i]).copy_(grad));
        }
    }
    return out;
}

std::optional<at::Tensor> maybe(at::Tensor* tensor) {
    return tensor ? std::optional<at::Tensor>(*tensor) : std::nullopt;
}

}  // namespace

extern "C" {

char* spotsweep_fused_sgd(Handles params, Handles grads, Handles momenta, size_t count, bool has_momentum,
                          double lr, double momentum, double weight_decay, bool nesterov, bool first,
                          at::Tensor* divide_by) {
    return guarded([&] {
        auto p = list(params, count);
        auto g = laid_out_like(p, grads);
        auto m = has_momentum ? list(momenta, count) : std::vector<at::Tensor>();
        at::_fused_sgd_(p, g, m, weight_decay, momentum, lr, 0.0, nesterov, false, first, maybe(divide_by));
    });
}

char* spotsweep_fused_adam(Handles params, Handles grads, Handles firsts, Handles seconds, size_t count,
                           at::Tensor* step, double lr, double beta1, double beta2, double epsilon,
                           double weight_decay, bool decoupled, at::Tensor* divide_by) {
    return guarded([&] {
        auto p = list(params, count);
        auto g = laid_out_like(p, grads);
        auto m = list(firsts, count);
        auto v = list(seconds, count);
        std::vector<at::Tensor> steps(count, *step);
        if (decoupled) {
            at::_fused_adamw_(p, g, m, v, {}, steps, lr, beta1, beta2, weight_decay, epsilon, false, false,
                              maybe(divide_by));
        } else {
            at::_fused_adam_(p, g, m, v, {}, steps, lr, beta1, beta2, weight_decay, epsilon, false, false,
                             maybe(divide_by));
        }
    });
}

// Kernels that sum in an undefined order are refused or replaced where libtorch has another; TensorFloat-32,
// which rounds f32 products to 10 bits, stays off: f32 means f32.
char* spotsweep_make_repeatable() {
    return guarded([] {
        auto& context = at::globalContext();
        context.setDeterministicCuDNN(true);
        context.setBenchmarkCuDNN(false);
        context.setDeterministicMkldnn(true);
        context.setDeterministicAlgorithms(true, /*warn_only=*/true);
        context.setDeterministicFillUninitializedMemory(false);
        context.setAllowTF32CuDNN(false);
        context.setAllowTF32CuBLAS(false);
    });
}

// The libtorch for which this was built.
const char* spotsweep_torch_version() { return TORCH_VERSION; }

}  // extern "C"
