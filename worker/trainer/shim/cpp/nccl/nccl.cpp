// libspotsweep_nccl.so: how a group over NCCL connects. All that needs CUDA's headers is here, and nothing else: the
// trainer is built without them, loads this library when a gang on GPUs forms, and does without it where it is not.
//
// What connects is a c10d::Backend like the trainer's own over Gloo, and is used through its virtual functions. Such an
// object passes from library to library only if both were built for one libtorch: the trainer asks for
// `spotsweep_nccl_abi` and `spotsweep_nccl_torch` first, and calls nothing else of a library that answers otherwise.
//
// The process's environment says that waiting is the caller's (TORCH_NCCL_BLOCKING_WAIT): c10d then starts no watchdog,
// whose way of ending a broken group is to end the process.

#include "../asking_store.h"
#include "../finish.h"
#include "../guarded.h"

#include <torch/csrc/cuda/nccl.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <torch/headeronly/version.h>

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Raised with each change of what follows.
EXPORTED uint32_t spotsweep_nccl_abi() { return 1; }

// The libtorch for which this was built.
EXPORTED const char* spotsweep_nccl_torch() { return TORCH_VERSION; }

// The NCCL that libtorch runs on, as major << 32 | minor << 16 | patch.
EXPORTED uint64_t spotsweep_nccl_version() { return torch::cuda::nccl::version(); }

// Connects, builds the communicator at once (later on the store is closed), and adds up a number over all ranks: only
// then is it known that every rank is there and that they reach each other.
EXPORTED char* spotsweep_nccl_connect(void* context, Tell tell, Ask ask, int rank, int size, int device,
                                      int64_t timeout_ms, c10::intrusive_ptr<c10d::Backend>** out) {
    return guarded([&] {
        auto timeout = std::chrono::milliseconds(timeout_ms);
        auto store = c10::make_intrusive<AskingStore>(context, tell, ask, timeout);
        Closer closer{*store};
        auto options = c10d::ProcessGroupNCCL::Options::create();
        options->timeout = timeout;
        // So that a peer that does not come is given up after TORCH_NCCL_NONBLOCKING_TIMEOUT.
        options->config.blocking = 0;
        auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
        try {
            at::Device gpu(at::kCUDA, static_cast<c10::DeviceIndex>(device));
            group->eagerConnectSingleDevice(gpu);
            std::vector<at::Tensor> one{at::ones({1}, at::TensorOptions().device(gpu))};
            finish(*group->allreduce(one), timeout_ms);
            auto ranks = one[0].item<float>();
            if (ranks != static_cast<float>(size)) {
                throw std::runtime_error("NCCL adds up " + std::to_string(size) + " ones to " + std::to_string(ranks));
            }
        } catch (...) {
            group->abort();
            throw;
        }
        *out = new c10::intrusive_ptr<c10d::Backend>(std::move(group));
    });
}
