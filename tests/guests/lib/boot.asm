; Entry of every 64-bit guest: Multiboot leaves it in flat 32-bit mode with EBX at the information structure; from there
; to long mode with 4 GiB mapped one to one by 2 MiB pages, an IDT of 256 stubs, and guest_main().
bits 32
MAGIC equ 0x1badb002
FLAGS equ 3 ; page-aligned modules, memory information

section .multiboot
align 4
dd MAGIC, FLAGS, -(MAGIC + FLAGS)

section .text
global start
extern run_guest
start:
        mov esp, stack_top
        mov [boot_magic], eax
        mov [boot_info], ebx
        mov eax, pdpt + 3
        mov [pml4], eax
        mov ecx, 4 ; PDPT entries
        mov edi, pdpt
        mov eax, pd + 3
.pdpte: mov [edi], eax
        add edi, 8
        add eax, 4096
        loop .pdpte
        mov ecx, 2048 ; PD entries of 2 MiB
        mov edi, pd
        mov eax, 0x83
.pde:   mov [edi], eax
        add edi, 8
        add eax, 0x200000
        loop .pde
        mov eax, cr4
        or eax, 1 << 5 ; PAE
        mov cr4, eax
        mov eax, pml4
        mov cr3, eax
        mov ecx, 0xc0000080 ; EFER.LME
        rdmsr
        or eax, 1 << 8
        wrmsr
        mov eax, cr0
        or eax, 1 << 31 | 1 << 16 ; PG, WP
        mov cr0, eax
        lgdt [gdtr]
        jmp 8:.long
bits 64
.long:  mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        lea rdi, [stubs]
        lea rsi, [idt]
        mov ecx, 256
.gate:  mov rax, rdi
        mov [rsi], ax
        mov word [rsi + 2], 8
        mov word [rsi + 4], 0x8e00
        shr rax, 16
        mov [rsi + 6], ax
        shr rax, 16
        mov [rsi + 8], eax
        add rsi, 16
        add rdi, 16
        loop .gate
        lidt [idtr]
        mov edi, [boot_magic]
        mov esi, [boot_info]
        call run_guest
.dead:  cli
        hlt
        jmp .dead

; One stub of 16 bytes a vector: [error code,] vector → every.
align 16
stubs:
%assign v 0
%rep 256
%if !(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30)
        push qword 0
%endif
        push qword v
        jmp near every
        align 16
%assign v v + 1
%endrep

extern on_vector
every:
%macro each_register 1-*
%rep %0
        push %1
%rotate 1
%endrep
%endmacro
        each_register rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        mov rdi, rsp
        cld
        call on_vector
%macro pop_each 1-*
%rep %0
        pop %1
%rotate 1
%endrep
%endmacro
        pop_each r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
        add rsp, 16
        iretq

section .data
align 8
global gdt
gdt:    dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff
        times 61 dq 0
gdtr:   dw 511
        dq gdt
idtr:   dw 4095
        dq idt

section .bss
alignb 4096
global pml4, pdpt, pd, idt
pml4:   resb 4096
pdpt:   resb 4096
pd:     resb 4 * 4096
idt:    resb 4096
boot_magic: resd 1
boot_info: resd 1
alignb 16
        resb 32768
stack_top:
