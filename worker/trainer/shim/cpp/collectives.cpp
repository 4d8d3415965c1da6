// Collective operations: c10d's process group over Gloo, and a rendezvous store that asks Rust.
// Every function catches what it calls; an exception's text goes out through the result, to be freed by free(3).

#include "guarded.h"

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

// Both give null, or an error's text as from strdup. `ask` gives the value as from malloc.
using Tell = char* (*)(void* context, const char* key, size_t key_len, const uint8_t* value, size_t value_len);
using Ask = char* (*)(void* context, const char* key, size_t key_len, uint8_t** value, size_t* value_len);

void raise(char* error) {
    if (error == nullptr) return;
    std::string text(error);
    free(error);
    throw std::runtime_error(text);
}

// Open while the group connects, on the thread that connects it: the context behind the pointers is that call's.
class AskingStore final : public c10d::Store {
 public:
    AskingStore(void* context, Tell tell, Ask ask, std::chrono::milliseconds timeout)
        : c10d::Store(timeout), context_(context), tell_(tell), ask_(ask), owner_(std::this_thread::get_id()) {}

    void close() { open_ = false; }

    // A group may keep a clone of its store: it is this one.
    c10::intrusive_ptr<c10d::Store> clone() override {
        return c10::intrusive_ptr<c10d::Store>::unsafe_reclaim_from_nonowning(this);
    }

    void set(const std::string& key, const std::vector<uint8_t>& value) override {
        check_open();
        raise(tell_(context_, key.data(), key.size(), value.data(), value.size()));
    }

    std::vector<uint8_t> get(const std::string& key) override {
        check_open();
        auto known = known_.find(key);
        if (known != known_.end()) return known->second;
        uint8_t* bytes = nullptr;
        size_t len = 0;
        raise(ask_(context_, key.data(), key.size(), &bytes, &len));
        std::vector<uint8_t> value(bytes, bytes + len);
        free(bytes);
        known_.emplace(key, value);
        return value;
    }

    void wait(const std::vector<std::string>& keys) override {
        for (const auto& key : keys) get(key);
    }

    void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds&) override { wait(keys); }

    int64_t add(const std::string&, int64_t) override { refuse("add"); }
    bool deleteKey(const std::string&) override { refuse("deleteKey"); }
    bool check(const std::vector<std::string>&) override { refuse("check"); }
    int64_t getNumKeys() override { refuse("getNumKeys"); }

 private:
    [[noreturn]] static void refuse(const char* what) {
        throw std::runtime_error(std::string("the rendezvous store has no ") + what);
    }

    void check_open() const {
        if (!open_ || std::this_thread::get_id() != owner_) {
            throw std::runtime_error("the rendezvous store is closed");
        }
    }

    void* context_;
    Tell tell_;
    Ask ask_;
    std::thread::id owner_;
    std::atomic<bool> open_{true};
    // Values never change: a wait's answer is the next get's.
    std::map<std::string, std::vector<uint8_t>> known_;
};

using Group = c10::intrusive_ptr<c10d::ProcessGroupGloo>;
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

    // Starts what is not started yet, and waits for all.
    void wait() {
        unhook();
        std::vector<Work> works;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            for (auto& missing : missing_) missing = 0;
            start_ready();
            works.swap(works_);
        }
        if (error_) std::rethrow_exception(error_);
        for (auto& work : works) work->wait();
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
        struct Closer {
            AskingStore& store;
            ~Closer() { store.close(); }
        } closer{*store};
        auto options = c10d::ProcessGroupGloo::Options::create(timeout);
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
        *out = new Group(c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options));
    });
}

// Its end waits for its threads, and these for whatever they wait for: on a thread of its own.
void spotsweep_gloo_free(Group* group) {
    free(guarded([&] { std::thread([group] { delete group; }).detach(); }));
}

char* spotsweep_gloo_all_reduce(Group* group, at::Tensor* tensor, Work** out) {
    return guarded([&] {
        std::vector<at::Tensor> tensors{*tensor};
        *out = boxed((*group)->allreduce(tensors));
    });
}

char* spotsweep_gloo_all_to_all(Group* group, at::Tensor* output, at::Tensor* input, const int64_t* output_counts,
                                const int64_t* input_counts, size_t ranks, Work** out) {
    return guarded([&] {
        std::vector<int64_t> outputs(output_counts, output_counts + ranks);
        std::vector<int64_t> inputs(input_counts, input_counts + ranks);
        *out = boxed((*group)->alltoall_base(*output, *input, outputs, inputs));
    });
}

char* spotsweep_gloo_all_gather(Group* group, at::Tensor* output, at::Tensor* input, Work** out) {
    return guarded([&] { *out = boxed((*group)->_allgather_base(*output, *input)); });
}

char* spotsweep_gloo_broadcast(Group* group, at::Tensor* tensor, int source, Work** out) {
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

char* spotsweep_overlap_wait(Overlap* overlap) {
    return guarded([&] { overlap->wait(); });
}

void spotsweep_overlap_free(Overlap* overlap) {
    free(guarded([&] { delete overlap; }));
}

char* spotsweep_work_wait(Work* work) {
    return guarded([&] { (*work)->wait(); });
}

void spotsweep_work_free(Work* work) {
    free(guarded([&] { delete work; }));
}

}  // extern "C"
