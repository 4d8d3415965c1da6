#pragma once
// A rendezvous store that asks Rust. It is part of each library that connects a group.

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

// Both give null, or an error's text as from strdup. `ask` gives the value as from malloc.
using Tell = char* (*)(void* context, const char* key, size_t key_len, const uint8_t* value, size_t value_len);
using Ask = char* (*)(void* context, const char* key, size_t key_len, uint8_t** value, size_t* value_len);

inline void raise(char* error) {
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

// Closes a store at the end of the call that connects.
struct Closer {
    AskingStore& store;
    ~Closer() { store.close(); }
};

}  // namespace
