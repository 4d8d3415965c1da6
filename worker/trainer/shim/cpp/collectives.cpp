// Collective operations of c10d's process groups, and how one over Gloo connects. One over NCCL comes from a library of
// its own (nccl/nccl.cpp), and is used through the same functions.
// Every function catches what it calls; an exception's text goes out through the result, to be freed by free(3).

#include "asking_store.h"
#include "finish.h"
#include "guarded.h"

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Group = c10::intrusive_ptr<c10d::Backend>;
using Work = c10::intrusive_ptr<c10d::Work>;

Work* boxed(Work work) { return new Work(std::move(work)); }

// Adds gradients to a row as a backward pass finds them, and starts the all-reduce of each bucket, in order, as soon as
// all that it waits for is there. Hooks may run on a thread of autograd.
class Overlap {
 public:
    Overlap(Group group, at::Tensor row, std::vector<at::Tensor> views, const std::vector<int64_t>& starts,
            const std::vector<size_t>& bucket_of)
        : group_(std::move(group)), views_(std::move(views)), bucket_of_(bucket_of), missing_(starts.size()) {
        // Buckets go from the row's end to its beginning: the last layers have their gradients first.
        int64_t end = row.numel();
        for (int64_t start : starts) {
            buckets_.push_back(row.narrow(0, start, end - start));
            end = start;
        }
        for (size_t bucket : bucket_of_) ++missing_[bucket];
    }

    ~Overlap() { unhook(); }

    void hook(const std::vector<at::Tensor>& params) {
        for (size_t i = 0; i < params.size(); ++i) {
            params_.push_back(params[i]);
            hooks_.push_back(params[i].register_hook([this, i](const at::Tensor& grad) { found(i, grad); }));
        }
    }

    // Starts what is not started yet, and waits for all, for each as `finish`.
    void wait(int64_t timeout_ms) {
        unhook();
        std::vector<Work> works;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            for (auto& missing : missing_) missing = 0;
            start_ready();
            works.swap(works_);
        }
        if (error_) std::rethrow_exception(error_);
        for (auto& work : works) finish(*work, timeout_ms);
    }

 private:
    void found(size_t i, const at::Tensor& grad) {
        c10::NoGradGuard no_grad;
        std::lock_guard<std::mutex> lock(mutex_);
        views_[i].add_(grad);
        --missing_[bucket_of_[i]];
        start_ready();
    }

    void start_ready() {
        try {
            while (started_ < buckets_.size() && missing_[started_] == 0) {
                std::vector<at::Tensor> tensors{buckets_[started_++]};
                works_.push_back(group_->allreduce(tensors));
            }
        } catch (...) {
            // Not through autograd: it is told to whoever waits.
            error_ = std::current_exception();
            started_ = buckets_.size();
        }
    }

    void unhook() {
        for (size_t i = 0; i < hooks_.size(); ++i) params_[i].remove_hook(hooks_[i]);
        hooks_.clear();
        params_.clear();
    }

    Group group_;
    std::vector<at::Tensor> views_, buckets_, params_;
    std::vector<size_t> bucket_of_, missing_;
    std::vector<unsigned> hooks_;
    size_t started_ = 0;
    std::mutex mutex_;
    std::vector<Work> works_;
    std::exception_ptr error_;
};

}  // namespace

extern "C" {

char* spotsweep_gloo_connect(void* context, Tell tell, Ask ask, int rank, int size, const char* address,
                             int64_t timeout_ms, Group** out) {
    return guarded([&] {
        auto timeout = std::chrono::milliseconds(timeout_ms);
        auto store = c10::make_intrusive<AskingStore>(context, tell, ask, timeout);
        Closer closer{*store};
        auto options = c10d::ProcessGroupGloo::Options::create(timeout);
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
        *out = new Group(c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options));
    });
}

// Its end waits for its threads, and these for whatever they wait for: on a thread of its own. A group over NCCL is
// aborted first: it then gives up its part of the GPU without a word from peers that may be gone.
void spotsweep_group_free(Group* group, bool abort_first) {
    free(guarded([&] {
        std::thread([group, abort_first] {
            free(guarded([&] {
                if (abort_first) (*group)->abort();
            }));
            free(guarded([&] { delete group; }));
        }).detach();
    }));
}

char* spotsweep_group_all_reduce(Group* group, at::Tensor* tensor, Work** out) {
    return guarded([&] {
        std::vector<at::Tensor> tensors{*tensor};
        *out = boxed((*group)->allreduce(tensors));
    });
}

char* spotsweep_group_all_to_all(Group* group, at::Tensor* output, at::Tensor* input, const int64_t* output_counts,
                                const int64_t* input_counts, size_t ranks, Work** out) {
    return guarded([&] {
        std::vector<int64_t> outputs(output_counts, output_counts + ranks);
        std::vector<int64_t> inputs(input_counts, input_counts + ranks);
        *out = boxed((*group)->alltoall_base(*output, *input, outputs, inputs));
    });
}

char* spotsweep_group_all_gather(Group* group, at::Tensor* output, at::Tensor* input, Work** out) {
    return guarded([&] { *out = boxed((*group)->_allgather_base(*output, *input)); });
}

char* spotsweep_group_broadcast(Group* group, at::Tensor* tensor, int source, Work** out) {
    return guarded([&] {
        std::vector<at::Tensor> tensors{*tensor};
        c10d::BroadcastOptions options;
        options.rootRank = source;
        *out = boxed((*group)->broadcast(tensors, options));
    });
}

char* spotsweep_overlap_new(Group* group, at::Tensor* row, at::Tensor* const* views, at::Tensor* const* params,
                            const size_t* bucket_of, size_t count, const int64_t* starts, size_t buckets,
                            Overlap** out) {
    return guarded([&] {
        std::vector<at::Tensor> own_views, own_params;
        for (size_t i = 0; i < count; ++i) {
            own_views.push_back(*views[i]);
            own_params.push_back(*params[i]);
        }
        auto overlap = std::make_unique<Overlap>(*group, *row, std::move(own_views),
                                                 std::vector<int64_t>(starts, starts + buckets),
                                                 std::vector<size_t>(bucket_of, bucket_of + count));
        overlap->hook(own_params);
        *out = overlap.release();
    });
}

char* spotsweep_overlap_wait(Overlap* overlap, int64_t timeout_ms) {
    return guarded([&] { overlap->wait(timeout_ms); });
}

void spotsweep_overlap_free(Overlap* overlap) {
    free(guarded([&] { delete overlap; }));
}

char* spotsweep_work_wait(Work* work, int64_t timeout_ms) {
    return guarded([&] { finish(**work, timeout_ms); });
}

void spotsweep_work_free(Work* work) {
    free(guarded([&] { delete work; }));
}

}  // extern "C"
