#pragma once
// No exception crosses into Rust: its text goes out instead, to be freed by free(3).

#include <c10/core/GradMode.h>
#include <cstring>
#include <exception>

template <typename F>
char* guarded(F&& body) {
    try {
        c10::NoGradGuard no_grad;
        body();
        return nullptr;
    } catch (const std::exception& e) {
        return strdup(e.what());
    } catch (...) {
        return strdup("an exception of unknown type");
    }
}
