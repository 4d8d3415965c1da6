#pragma once
// The end of an operation. It is part of each library that connects a group.

#include <torch/csrc/distributed/c10d/Work.hpp>

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

// So long a wait keeps asking before it lets others run between two questions.
constexpr auto SPINS = std::chrono::microseconds(200);

// Waits until an operation is over. Gloo's own wait knows its timeout: `timeout_ms` is 0. NCCL's operations run on the
// GPU, where they wait for a lost peer without end: they are asked until they are done, failed or late, and one that is
// late is aborted, with its whole group (ncclCommAbort), so that the GPU is free again.
inline void finish(c10d::Work& work, int64_t timeout_ms) {
    if (timeout_ms > 0) {
        auto begun = std::chrono::steady_clock::now();
        while (!work.isCompleted()) {
            auto waited = std::chrono::steady_clock::now() - begun;
            if (waited > std::chrono::milliseconds(timeout_ms)) {
                work.abort();
                throw std::runtime_error("NCCL: no answer from a peer in " + std::to_string(timeout_ms) + " ms");
            }
            if (waited > SPINS) std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
    }
    work.wait();
}

}  // namespace
