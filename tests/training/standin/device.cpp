// A device of torch that is not the host: "standin". Its memory is the host's, its kernels are those of the CPU, and
// nothing knows it. What makes it a device is that tensors say so, that they have to be copied there and back, that
// memory is pinned for it, and that a kernel which is given tensors of both places is an error, as on a GPU.

#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <cstdlib>
#include <map>
#include <mutex>

namespace {

constexpr auto OWN = c10::DeviceType::PrivateUse1;
const c10::Device HERE(OWN, 0);

// Memory

void release(void* memory) { std::free(memory); }

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = bytes ? std::malloc(bytes) : nullptr;
    return {memory, memory, &release, HERE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

Memory memory;
REGISTER_ALLOCATOR(OWN, &memory);

std::mutex pinned_lock;
std::map<const char*, size_t> pinned_blocks;

void unpin(void* block) {
  {
    std::lock_guard<std::mutex> held(pinned_lock);
    pinned_blocks.erase(static_cast<const char*>(block));
  }
  std::free(block);
}

struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* block = std::malloc(bytes ? bytes : 1);
    std::lock_guard<std::mutex> held(pinned_lock);
    pinned_blocks[static_cast<const char*>(block)] = bytes ? bytes : 1;
    return {block, block, &unpin, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

PinnedMemory pinned_memory;

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  bool isPinnedPtr(const void* data) const override {
    std::lock_guard<std::mutex> held(pinned_lock);
    auto next = pinned_blocks.upper_bound(static_cast<const char*>(data));
    if (next == pinned_blocks.begin()) return false;
    auto block = std::prev(next);
    return static_cast<const char*>(data) < block->first + block->second;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto* own = storage.unsafeGetStorageImpl();
    auto fresh = memory.allocate(bytes);
    const size_t kept = std::min(bytes, own->nbytes());
    if (kept) std::memcpy(fresh.get(), own->data(), kept);
    own->set_data_ptr_noswap(std::move(fresh));
    own->set_nbytes(bytes);
  }
};

// Everything is done in order, so streams and events have nothing to do.
struct Guard final : c10::impl::NoOpDeviceGuardImpl<OWN> {
  c10::Device exchangeDevice(c10::Device) const override { return HERE; }
  c10::Device getDevice() const override { return HERE; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream getNewStream(c10::Device, int) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// Kernels

// The same memory, seen as a tensor of the host.
at::Tensor seen(const at::Tensor& tensor) {
  if (!tensor.is_privateuseone()) return tensor;
  auto storage = tensor.storage();
  void* start = static_cast<char*>(storage.mutable_data()) + tensor.storage_offset() * tensor.itemsize();
  return at::from_blob(
      start, tensor.sizes(), tensor.strides(), [storage](void*) {}, tensor.options().device(c10::kCPU));
}

at::Tensor empty(
    c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(
      size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(
    c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  seen(to).copy_(seen(from));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar local_scalar(const at::Tensor& tensor) { return seen(tensor).item(); }

at::Tensor& set_storage(
    at::Tensor& result, at::Storage storage, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  result.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  result.unsafeGetTensorImpl()->set_sizes_and_strides(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return result;
}

int64_t plain_attention(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, double, bool,
    std::optional<double>, bool) {
  return static_cast<int64_t>(sdp::SDPBackend::math);
}

// Of integers too, as on a GPU.
at::Tensor histogram(const at::Tensor& values, int64_t bins, const at::Scalar& least, const at::Scalar& most) {
  return at::histc(seen(values).to(at::kDouble), bins, least, most).to(values.options());
}

void check_place(const at::Tensor& tensor, const c10::OperatorHandle& op) {
  // A number may come from the host, as it may on a GPU.
  if (!tensor.defined() || tensor.is_privateuseone() || tensor.dim() == 0 || tensor.is_meta()) return;
  TORCH_CHECK(false, "Expected all tensors to be on the same device: ", op.schema().name(), " is given one of ",
              tensor.device(), " beside those of ", HERE);
}

void on_the_host(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  for (const auto& argument : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (argument.isTensor()) {
      check_place(argument.toTensor(), op);
    } else if (argument.isTensorList()) {
      for (const auto& tensor : argument.toTensorVector()) check_place(tensor, op);
    }
  }
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_host>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("resize_", TORCH_FN(at::native::resize_));
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("histc", &histogram);
  m.impl("_fused_sdp_choice", &plain_attention);
}

// Messages between ranks, carried by a backend of the host.

struct Carried final : c10d::Backend {
  explicit Carried(c10::intrusive_ptr<c10d::Backend> host)
      : c10d::Backend(host->getRank(), host->getSize()), host_(std::move(host)) {}

  ~Carried() override {
    // The host's backend waits for its threads, which may wait for Python.
    if (PyGILState_Check()) {
      pybind11::gil_scoped_release others;
      host_.reset();
    }
  }

  const std::string getBackendName() const override { return "carried"; }

  static std::vector<at::Tensor> all(const std::vector<at::Tensor>& tensors) {
    std::vector<at::Tensor> found;
    for (const auto& tensor : tensors) {
      TORCH_CHECK(tensor.is_privateuseone(), "a message of ", HERE, " with a tensor of ", tensor.device());
      found.push_back(seen(tensor));
    }
    return found;
  }
  static std::vector<std::vector<at::Tensor>> all(const std::vector<std::vector<at::Tensor>>& lists) {
    std::vector<std::vector<at::Tensor>> found;
    for (const auto& list : lists) found.push_back(all(list));
    return found;
  }

  using Done = c10::intrusive_ptr<c10d::Work>;
  Done broadcast(std::vector<at::Tensor>& tensors, const c10d::BroadcastOptions& options) override {
    auto own = all(tensors);
    return host_->broadcast(own, options);
  }
  Done allreduce(std::vector<at::Tensor>& tensors, const c10d::AllreduceOptions& options) override {
    auto own = all(tensors);
    return host_->allreduce(own, options);
  }
  Done allreduce_coalesced(
      std::vector<at::Tensor>& tensors, const c10d::AllreduceCoalescedOptions& options) override {
    auto own = all(tensors);
    return host_->allreduce_coalesced(own, options);
  }
  Done allgather(
      std::vector<std::vector<at::Tensor>>& outputs, std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& options) override {
    auto to = all(outputs);
    auto from = all(inputs);
    return host_->allgather(to, from, options);
  }
  Done _allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& options) override {
    auto both = all({output, input});
    return host_->_allgather_base(both[0], both[1], options);
  }
  Done allgather_into_tensor_coalesced(
      std::vector<at::Tensor>& outputs, std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& options) override {
    auto to = all(outputs);
    auto from = all(inputs);
    return host_->allgather_into_tensor_coalesced(to, from, options);
  }
  Done _reduce_scatter_base(
      at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& options) override {
    auto both = all({output, input});
    return host_->_reduce_scatter_base(both[0], both[1], options);
  }
  Done reduce_scatter_tensor_coalesced(
      std::vector<at::Tensor>& outputs, std::vector<at::Tensor>& inputs,
      const c10d::ReduceScatterOptions& options) override {
    auto to = all(outputs);
    auto from = all(inputs);
    return host_->reduce_scatter_tensor_coalesced(to, from, options);
  }
  Done alltoall_base(
      at::Tensor& output, at::Tensor& input, std::vector<int64_t>& received, std::vector<int64_t>& sent,
      const c10d::AllToAllOptions& options) override {
    auto both = all({output, input});
    return host_->alltoall_base(both[0], both[1], received, sent, options);
  }
  Done barrier(const c10d::BarrierOptions& options) override { return host_->barrier(options); }

 private:
  c10::intrusive_ptr<c10d::Backend> host_;
};

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  m.def("carry", [](const c10::intrusive_ptr<c10d::Backend>& host) -> c10::intrusive_ptr<c10d::Backend> {
    return c10::make_intrusive<Carried>(host);
  });
}
