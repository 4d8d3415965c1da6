// Collective operations: c10d's process group over Gloo, and a rendezvous store that asks Rust.
// Every function catches what it calls; an exception's text goes out through the result, to be freed by free(3).

#include "guarded.h"

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
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

char* spotsweep_work_wait(Work* work) {
    return guarded([&] { (*work)->wait(); });
}

void spotsweep_work_free(Work* work) {
    free(guarded([&] { delete work; }));
}

}  // extern "C"
