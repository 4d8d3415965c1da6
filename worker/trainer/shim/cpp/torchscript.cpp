// TorchScript modules: what tch does not give of them. Its modules have no buffers, and its errors carry the trace of a C++ stack.
// Every function catches what it calls; a text goes out through the result, to be freed by free(3).

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <algorithm>
#include <cstring>
#include <istream>
#include <set>
#include <streambuf>
#include <string>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/tensorexpr_fuser.h>
#include <torch/csrc/jit/python/update_graph_executor_opt.h>
#include <torch/csrc/jit/serialization/import.h>
#include <vector>

namespace {

// A module and the mode in which it is.
struct Script {
    torch::jit::Module module;
    bool known = false;
    bool training = false;
};

// What went wrong, in one line. The interpreter's own messages end with it, behind a trace of the module's source; all others
// begin with it.
std::string in_a_line(const std::string& what) {
    const bool interpreted = what.find("TorchScript interpreter") != std::string::npos ||
                             what.find("Traceback of TorchScript") != std::string::npos;
    std::string line;
    for (size_t at = 0; at < what.size();) {
        size_t end = what.find('\n', at);
        if (end == std::string::npos) end = what.size();
        std::string next = what.substr(at, end - at);
        if (next.find_first_not_of(" \t\r~^<>-.") != std::string::npos) {
            line = next;
            if (!interpreted) break;
        }
        at = end + 1;
    }
    return line.empty() ? "it does not say why" : line;
}

template <typename F>
char* told(F&& body) {
    try {
        body();
        return nullptr;
    } catch (const c10::Error& e) {
        return strdup(in_a_line(e.what_without_backtrace()).c_str());
    } catch (const std::exception& e) {
        return strdup(in_a_line(e.what()).c_str());
    } catch (...) {
        return strdup("an exception of unknown type");
    }
}

// Bytes in memory as a stream that can be sought in, without another copy of them.
struct Bytes : std::streambuf {
    Bytes(const char* data, size_t size) {
        char* begin = const_cast<char*>(data);
        setg(begin, begin, begin + size);
    }
    pos_type seekoff(off_type off, std::ios_base::seekdir from, std::ios_base::openmode) override {
        char* base = from == std::ios_base::beg ? eback() : from == std::ios_base::cur ? gptr() : egptr();
        if (off < eback() - base || off > egptr() - base) return pos_type(off_type(-1));
        setg(eback(), base + off, egptr());
        return gptr() - eback();
    }
    pos_type seekpos(pos_type at, std::ios_base::openmode mode) override {
        return seekoff(off_type(at), std::ios_base::beg, mode);
    }
};

// The operations that do something else in training, by the name of the argument that says so.
const char* mode_argument(const torch::jit::Node* node) {
    static const std::set<std::string> drops = {
        "aten::dropout", "aten::dropout_", "aten::feature_dropout", "aten::feature_dropout_",
        "aten::alpha_dropout", "aten::alpha_dropout_", "aten::feature_alpha_dropout", "aten::feature_alpha_dropout_"};
    const std::string kind = node->kind().toQualString();
    if (drops.count(kind)) return "train";
    return kind == "aten::batch_norm" ? "training" : nullptr;
}

// What a graph does that matters to who trains it.
struct Findings {
    // It asks whether it is in training.
    bool asks_mode = false;
    // Operations that are in evaluation mode whatever the module's mode is.
    std::set<std::string> frozen;
    // Attributes that it puts something else into.
    std::set<std::string> assigned;
    // Attributes that are no tensors and that it changes where they are.
    std::set<std::string> mutated;
    // It starts work on other threads.
    bool forks = false;

    void walk(const torch::jit::Block* block) {
        for (const torch::jit::Node* node : block->nodes()) {
            look(node);
            for (const torch::jit::Block* inner : node->blocks()) walk(inner);
        }
    }

    void look(const torch::jit::Node* node) {
        if (node->kind() == c10::prim::GetAttr && node->s(c10::attr::name) == "training") asks_mode = true;
        if (node->kind() == c10::prim::fork) forks = true;
        if (node->kind() == c10::prim::SetAttr) assigned.insert(node->s(c10::attr::name));
        const c10::FunctionSchema* schema = node->maybeSchema();
        if (!schema) return;
        const char* mode = mode_argument(node);
        const auto& arguments = schema->arguments();
        for (size_t i = 0; i < arguments.size() && i < node->inputs().size(); ++i) {
            const torch::jit::Value* input = node->inputs()[i];
            if (mode && arguments[i].name() == mode) {
                auto value = torch::jit::toIValue(input);
                if (value && value->isBool() && !value->toBool()) frozen.insert(node->kind().toUnqualString());
            }
            const auto* alias = arguments[i].alias_info();
            const torch::jit::Node* from = input->node();
            if (alias && alias->isWrite() && from->kind() == c10::prim::GetAttr &&
                !input->type()->isSubtypeOf(*c10::TensorType::get())) {
                mutated.insert(from->s(c10::attr::name));
            }
        }
    }
};

std::string listed(const std::set<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

struct Named {
    std::string name;
    at::Tensor tensor;
    bool is_parameter;
};

}  // namespace

extern "C" {

// What is wrong with a module, as far as its graph tells.
using EachFault = void (*)(void* context, int kind, const char* names);
// A tensor, whose ownership goes over. `repeated`: another name stood for the same tensor before. `shared`: for another one that
// begins at the same place in memory.
using EachTensor = void (*)(void* context, const char* name, at::Tensor* tensor, bool is_parameter, bool repeated, bool shared);

// Devices are as tch numbers them: -1 is the CPU.
char* spotsweep_script_load(const char* bytes, size_t size, int device, Script** out) {
    return told([&] {
        // For this thread. The profiling executor looks at the first runs and then makes other kernels of the graph: a module
        // that was loaded anew would compute other bits in its first steps than one that has run on.
        torch::jit::setGraphExecutorOptimize(false);
        torch::jit::setTensorExprFuserEnabled(false);
        Bytes buffer(bytes, size);
        std::istream in(&buffer);
        const auto where = device < 0 ? c10::Device(c10::kCPU) : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device));
        *out = new Script{torch::jit::load(in, where)};
    });
}

void spotsweep_script_free(Script* script) { delete script; }

// All tensors that lie in attributes, in ascending order of their names: parameters, buffers, and what is neither.
char* spotsweep_script_tensors(Script* script, void* context, EachTensor each) {
    return told([&] {
        std::vector<Named> found;
        for (const auto& inner : script->module.named_modules()) {
            const auto object = inner.value._ivalue();
            const auto type = object->type();
            for (size_t i = 0; i < type->numAttributes(); ++i) {
                const c10::IValue& value = object->getSlot(i);
                if (!value.isTensor() || !value.toTensor().defined()) continue;
                const std::string name = type->getAttributeName(i);
                found.push_back({inner.name.empty() ? name : inner.name + "." + name, value.toTensor(), type->is_parameter(i)});
            }
        }
        std::sort(found.begin(), found.end(), [](const Named& a, const Named& b) { return a.name < b.name; });
        std::set<const void*> seen;
        for (const Named& one : found) {
            const void* identity = one.tensor.unsafeGetTensorImpl();
            const void* memory = one.tensor.has_storage() && one.tensor.numel() > 0 ? one.tensor.data_ptr() : nullptr;
            const bool repeated = !seen.insert(identity).second;
            const bool shared = !repeated && memory && !seen.insert(memory).second;
            each(context, one.name.c_str(), new at::Tensor(one.tensor), one.is_parameter, repeated, shared);
        }
    });
}

// Looks for what would make training wrong or not repeatable.
char* spotsweep_script_faults(Script* script, void* context, EachFault each) {
    return told([&] {
        auto graph = script->module.get_method("forward").graph()->copy();
        torch::jit::Inline(*graph);
        Findings found;
        found.walk(graph->block());
        if (!found.asks_mode && !found.frozen.empty()) each(context, 0, listed(found.frozen).c_str());
        if (!found.assigned.empty()) each(context, 1, listed(found.assigned).c_str());
        if (!found.mutated.empty()) each(context, 2, listed(found.mutated).c_str());
        if (found.forks) each(context, 3, "");
    });
}

// Runs `forward` on one tensor, in the caller's mode of gradients.
char* spotsweep_script_forward(Script* script, const at::Tensor* input, bool training, at::Tensor** out) {
    return told([&] {
        if (!script->known || script->training != training) {
            script->module.train(training);
            script->known = true;
            script->training = training;
        }
        const c10::IValue answer = script->module.forward({*input});
        TORCH_CHECK(answer.isTensor(), "forward gives ", answer.type()->repr_str(), " and not one tensor");
        *out = new at::Tensor(answer.toTensor());
    });
}

}  // extern "C"
